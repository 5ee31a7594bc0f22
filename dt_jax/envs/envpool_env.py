"""MuJoCo's locomotion bodies on EnvPool, with the semantics of D4RL's gym v2 classes.

v4 of HalfCheetah, Hopper and Walker2d has D4RL's rewards, health checks, reset noise
and time limit; v5 has another healthy reward and another foot friction of Walker's.
"""

import os
from collections.abc import Sequence
from typing import Any

import envpool
import numpy as np

from dt_jax.envs.base import HostEnv
from dt_jax.errors import UserError
from dt_jax.types import Step


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
        self._env_id = env_id
        self._max_episode_steps = max_episode_steps
        self._num_threads = min(num_threads or _usable_cores(), len(seeds))
        self._seeds = [int(seed) for seed in seeds]
        self._pool: Any = None
        spec = envpool.make_spec(env_id)
        self.num_envs = len(seeds)
        (self.observation_size,) = spec.observation_space.shape
        (self.action_size,) = spec.action_space.shape

    def host_reset(self) -> np.ndarray:
        """Start all episodes from their seeds and return observations [N, S].

        The pool is built anew: EnvPool takes its seeds then, and ignores reset(seed).
        """
        if self._pool is not None:
            self._pool.close()
            self._pool = None  # its memory goes before the next one's is taken
        self._pool = envpool.make_gymnasium(
            self._env_id,
            num_envs=self.num_envs,
            seed=self._seeds,
            max_episode_steps=self._max_episode_steps,
            num_threads=self._num_threads,
        )
        self._running = np.ones(self.num_envs, bool)
        observations, _ = self._pool.reset()
        return observations.astype(np.float32)

    def host_step(self, actions: np.ndarray) -> Step:
        """Advance each episode by one action [N, A], clipped to ±1.

        Actions of episodes that have ended are not looked at.

        Raises:
          UserError: an action is NaN.
        """
        actions = np.where(self._running[:, None], actions, 0.0)
        bad = np.isnan(actions).any(axis=-1)
        if bad.any():
            raise UserError(
                f"{self._env_id} was given a NaN action in episode {bad.argmax()} of "
                f"{self.num_envs}; the policy's parameters or inputs are not finite"
            )
        actions = np.ascontiguousarray(np.clip(actions, -1.0, 1.0), np.float64)
        observations, rewards, terminated, truncated, _ = self._pool.step(actions)
        done = terminated | truncated
        self._running &= ~done
        return Step(observations.astype(np.float32), rewards.astype(np.float32), done)


def _usable_cores() -> int:
    """Count the cores this process may use, fewer than the machine's in a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
