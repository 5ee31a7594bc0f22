"""MuJoCo's locomotion bodies on EnvPool, with the semantics of D4RL's gym v2 classes.

v4 of HalfCheetah, Hopper and Walker2d has D4RL's rewards, health checks, reset noise
and time limit; v5 has another healthy reward and another foot friction of Walker's.
"""

from collections.abc import Sequence
from typing import Any

import envpool
import numpy as np

from dt_jax.envs.base import HostEnv, usable_cores


class EnvPoolEnv(HostEnv):
    """N copies of one EnvPool environment.

    The same seeds and actions give the same observations, whatever the threads.

    Args:
      env_id: EnvPool's name, "Hopper-v4".
      seeds: one int32 for each episode.
      max_episode_steps: the time limit; reaching it ends the episode.
      num_threads: of EnvPool; the usable cores where not given.
    """

    def __init__(
        self,
        env_id: str,
        seeds: Sequence[int],
        max_episode_steps: int,
        num_threads: int | None = None,
    ):
        spec = envpool.make_spec(env_id)
        (observation_size,) = spec.observation_space.shape
        (action_size,) = spec.action_space.shape
        sizes = len(seeds), observation_size, action_size
        bounds = spec.action_space.low, spec.action_space.high
        super().__init__(env_id, sizes, max_episode_steps, bounds)
        self._num_threads = min(num_threads or usable_cores(), len(seeds))
        self._seeds = [int(seed) for seed in seeds]
        self._pool: Any = None

    def _start(self) -> np.ndarray:
        """Build the pool anew: EnvPool takes its seeds then, not at a reset."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None  # its memory goes before the next one's is taken
        self._pool = envpool.make_gymnasium(
            self._name,
            num_envs=self.num_envs,
            seed=self._seeds,
            max_episode_steps=self.max_episode_steps,
            num_threads=self._num_threads,
        )
        observations, _ = self._pool.reset()
        return observations

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        observations, rewards, terminated, truncated, _ = self._pool.step(actions)
        return observations, rewards, terminated | truncated
