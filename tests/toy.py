"""A linear environment in pure JAX, for tests."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dt_jax.types import Array, Step

_START_NOISE = 0.1


class LinearState(NamedTuple):
    """The state of N episodes of the linear environment."""

    observations: Array  # [N, S]
    time: Array  # [] int32, steps taken


class LinearEnv:
    """N copies of s ← M s + B a with reward w·s after the step.

    The arrays keep their dtype: float64 if JAX has x64 enabled, else float32.

    Args:
      m: M [S, S].
      b: B [S, A].
      w: w [S].
      s0: the start [S].
      horizons: the lengths of the N episodes.
      seeds: N seeds of a noise that is added to each start; by default none.
    """

    def __init__(
        self,
        m: np.ndarray,
        b: np.ndarray,
        w: np.ndarray,
        s0: np.ndarray,
        horizons: Sequence[int],
        seeds: Sequence[int] | None = None,
    ):
        self.num_envs = len(horizons)
        self.observation_size, self.action_size = b.shape
        self._m, self._b, self._w = m, b, w
        self._horizons = np.asarray(horizons, np.int32)
        self._starts = np.repeat(s0[None], self.num_envs, axis=0)  # [N, S]
        for start, seed in zip(self._starts, seeds or (), strict=bool(seeds)):
            noise = np.random.default_rng(seed).standard_normal(s0.shape)
            start += (_START_NOISE * noise).astype(s0.dtype)

    def reset(self) -> tuple[LinearState, jax.Array]:
        """Start all episodes; return the state and the first observations [N, S]."""
        observations = jnp.asarray(self._starts)
        return LinearState(observations, jnp.zeros((), jnp.int32)), observations

    def step(self, state: LinearState, actions: Array) -> tuple[LinearState, Step]:
        """Advance each episode by one action [N, A]."""
        m, b, w = jnp.asarray(self._m), jnp.asarray(self._b), jnp.asarray(self._w)
        observations = state.observations @ m.T + actions @ b.T
        state = LinearState(observations, state.time + 1)
        done = state.time >= jnp.asarray(self._horizons)
        return state, Step(observations, observations @ w, done)

    def check(self) -> None:
        """Do nothing: there are no errors outside the compiled program."""
