"""EnvPool's environments.

D4RL's HalfCheetah, Hopper and Walker2d are v4: it has D4RL's rewards, health checks,
reset noise and time limit. v5 changes the healthy reward and Walker2d's foot friction.
"""

import ctypes
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import envpool
import numpy as np

from dt_jax.data.registry import EnvSpec
from dt_jax.envs.base import HostEnv, usable_cores, wrap_build_errors
from dt_jax.envs.spaces import action_bounds, is_discrete, spec_from_spaces


def describe(env_id: str) -> EnvSpec:
    """Return the spec of an EnvPool environment.

    Raises:
      UserError: it cannot be built, or its spaces are not vectors.
    """
    spec, observation_space, action_space = _spec_and_spaces(env_id)
    limit = spec.config.max_episode_steps
    return spec_from_spaces(env_id, "envpool", observation_space, action_space, limit)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warning that EnvPool gives float64 bounds to float32 spaces."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precision lowered")
        yield


def _spec_and_spaces(env_id: str) -> tuple[Any, Any, Any]:
    """Return EnvPool's spec, the observation space and the action space."""
    with _quiet(), wrap_build_errors(env_id):
        spec = envpool.make_spec(env_id)
        return spec, spec.observation_space, spec.action_space


class EnvPoolEnv(HostEnv):
    """N copies of one EnvPool environment.

    The same seeds and actions give the same observations for any number of threads.

    Args:
      env_id: EnvPool's name, "Hopper-v4".
      seeds: one int32 per episode.
      max_episode_steps: the time limit; reaching it ends the episode.
      num_threads: of EnvPool; by default the usable cores.
      **options: further EnvPool options, such as render_mode.

    Attributes:
      pool: the EnvPool object; set by the first reset.
      info: EnvPool's info dictionary of the last step or reset.
    """

    def __init__(
        self,
        env_id: str,
        seeds: Sequence[int],
        max_episode_steps: int,
        num_threads: int | None = None,
        **options: Any,
    ):
        _, observation_space, action_space = _spec_and_spaces(env_id)
        bounds = action_bounds(action_space)
        sizes = len(seeds), *observation_space.shape, len(bounds[0])
        super().__init__(env_id, sizes, max_episode_steps, bounds)
        self._discrete = is_discrete(action_space)
        self._num_threads = min(num_threads or usable_cores(), len(seeds))
        self.seeds = [int(seed) for seed in seeds]
        self._options = options
        self.pool: Any = None
        self.info: dict[str, Any] = {}

    def _start(self) -> np.ndarray:
        """Build a new pool: EnvPool takes seeds at construction, not at a reset."""
        self.close()  # frees its memory before the next pool allocates
        self.pool = envpool.make_gymnasium(
            self._name,
            num_envs=self.num_envs,
            seed=self.seeds,
            max_episode_steps=self.max_episode_steps,
            num_threads=self._num_threads,
            **self._options,
        )
        with _quiet():
            observations, self.info = self.pool.reset()
        return observations

    def close(self) -> None:
        """Release the pool; the next reset builds another one."""
        if self.pool is not None:
            self.pool.close()
            self.pool = None
            _trim_heap()

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        if self._discrete:
            actions = actions.argmax(axis=1).astype(np.int32)
        observations, rewards, terminated, truncated, self.info = self.pool.step(
            actions
        )
        return observations, rewards, terminated | truncated


def _trim_heap() -> None:
    """Return freed memory to the system.

    Each pool is built by its own threads. glibc keeps the memory they have freed in
    per-thread arenas, so that without this the process grows with each new pool.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)
