"""EnvPool's environments; of MuJoCo's locomotion bodies, v4 is as in D4RL.

v4 of HalfCheetah, Hopper and Walker2d has D4RL's rewards, health checks, reset noise
and time limit; v5 has another healthy reward and another foot friction of Walker's.
"""

import ctypes
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import envpool
import numpy as np

from dt_jax.data.registry import DatasetSpec
from dt_jax.envs.base import HostEnv, usable_cores
from dt_jax.envs.spaces import cannot_build, spec_from_spaces


def describe(env_id: str) -> DatasetSpec:
    """Return what EnvPool knows of an environment.

    Raises:
      UserError: it cannot be built, or its spaces are no vectors.
    """
    spec, observation_space, action_space = _spec_and_spaces(env_id)
    limit = spec.config.max_episode_steps
    return spec_from_spaces(env_id, "envpool", observation_space, action_space, limit)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide that EnvPool gives float64 bounds to spaces of float32."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precision lowered")
        yield


def _spec_and_spaces(env_id: str) -> tuple[Any, Any, Any]:
    """Return EnvPool's spec, and the spaces of observations and actions."""
    try:
        with _quiet():
            spec = envpool.make_spec(env_id)
            return spec, spec.observation_space, spec.action_space
    except Exception as error:  # a library that is missing; KeyError and the like
        raise cannot_build(env_id, error) from error


class EnvPoolEnv(HostEnv):
    """N copies of one EnvPool environment.

    The same seeds and actions give the same observations, whatever the threads.

    Args:
      env_id: EnvPool's name, "Hopper-v4".
      seeds: one int32 for each episode.
      max_episode_steps: the time limit; reaching it ends the episode.
      num_threads: of EnvPool; the usable cores where not given.
      **options: for EnvPool, such as how to draw.

    Attributes:
      pool: EnvPool's own, from the first reset on.
      info: what it said beside the last observations, by name.
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
        sizes = len(seeds), *observation_space.shape, *action_space.shape
        bounds = action_space.low, action_space.high
        super().__init__(env_id, sizes, max_episode_steps, bounds)
        self._num_threads = min(num_threads or usable_cores(), len(seeds))
        self._seeds = [int(seed) for seed in seeds]
        self._options = options
        self.pool: Any = None
        self.info: dict[str, Any] = {}

    def _start(self) -> np.ndarray:
        """Build the pool anew: EnvPool takes its seeds then, not at a reset."""
        if self.pool is not None:
            self.pool.close()
            self.pool = None  # its memory goes before the next one's is taken
            _give_back_freed_memory()
        self.pool = envpool.make_gymnasium(
            self._name,
            num_envs=self.num_envs,
            seed=self._seeds,
            max_episode_steps=self.max_episode_steps,
            num_threads=self._num_threads,
            **self._options,
        )
        with _quiet():
            observations, self.info = self.pool.reset()
        return observations

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        observations, rewards, terminated, truncated, self.info = self.pool.step(
            actions
        )
        return observations, rewards, terminated | truncated


def _give_back_freed_memory() -> None:
    """Return to the system what was freed, where the C library would hold on to it.

    Each pool is built by threads of its own. glibc keeps what they have freed, but for
    the threads that get the same arena again: a process grew with each new pool.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        if trim is not None:
            trim(0)
