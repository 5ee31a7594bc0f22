"""The one protocol of every environment: N episodes in step, arrays in and out."""

import os
from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
from jax.experimental import io_callback

from dt_jax.envs.spaces import MEND, playing
from dt_jax.types import Array, Step
from dt_jax.utils.errors import UserError

EnvState = Any  # a pytree; () where the state lives outside JAX


class BatchedEnv(Protocol):
    """N environments, each with its own seed, stepped together.

    An environment whose episode has ended may go on or start anew: whoever steps it
    ignores what comes after the first `done`.
    """

    num_envs: int
    observation_size: int
    action_size: int

    def reset(self) -> tuple[EnvState, Array]:
        """Start all episodes from their seeds; the same ones at every call.

        Returns:
          The state and the first observations [N, S].
        """

    def step(self, state: EnvState, actions: Array) -> tuple[EnvState, Step]:
        """Advance each episode by one action [N, A]; may be traced by JAX."""

    def check(self) -> None:
        """Raise what went wrong in a compiled program, once its results are there."""


class HostEnv(ABC):
    """An engine outside JAX behind the protocol, stepped by an ordered callback.

    io_callback can be neither vmapped nor put in a jit over several devices: keep the
    rollout on one local device.

    An exception that left a callback would reach the caller as a JaxRuntimeError with
    the whole traceback as its text, logged once more by JAX. So it stays here: from
    then on every episode is done, with NaN as observation and reward, which ends the
    rollout soon, and `check` raises the exception itself.

    Args:
      name: the environment, as error lines call it.
      sizes: N, S and A.
      max_episode_steps: the time limit; reaching it ends the episode.
      action_bounds: actions are clipped to them; numbers, or an array [A] each.
    """

    def __init__(
        self,
        name: str,
        sizes: tuple[int, int, int],
        max_episode_steps: int,
        action_bounds: tuple[Array | float, Array | float] = (-1.0, 1.0),
    ):
        self.num_envs, self.observation_size, self.action_size = sizes
        self._name = name
        self.max_episode_steps = max_episode_steps
        self._action_bounds = action_bounds
        self._running = np.zeros(self.num_envs, bool)
        self._time = 0  # steps since the reset
        self._error: Exception | None = None

    @abstractmethod
    def _start(self) -> np.ndarray:
        """Start all episodes from their seeds and return observations [N, S]."""

    @abstractmethod
    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return observations [N, S], rewards [N] and ends [N] after an action each.

        Args:
          actions: [N, A] float64, within the bounds; 0 where the episode has ended
            (`self._running` is false) and nothing needs to be done.
        """

    def host_reset(self) -> np.ndarray:
        """Start all episodes from their seeds and return observations [N, S]."""
        self._error = None
        self._running[:] = True
        self._time = 0
        with playing(self._name, "at a reset"):
            observations = _float32(self._start())
        self._check_finite("an observation", observations, self._running)
        return observations

    def host_step(self, actions: Array) -> Step:
        """Advance each episode by one action [N, A], clipped, without JAX.

        Actions of episodes that have ended are not looked at.

        Raises:
          UserError: an action is NaN, or what the engine returns; or it fails.
        """
        actions = np.where(self._running[:, None], np.asarray(actions, np.float64), 0)
        bad = np.isnan(actions).any(axis=-1)
        if bad.any():
            raise UserError(
                f"{self._name} was given a NaN action in episode {bad.argmax()} of "
                f"{self.num_envs}; the policy's parameters or inputs are not finite"
            )
        actions = np.clip(actions, *self._action_bounds)
        self._time += 1
        with playing(self._name, f"at step {self._time} of an episode"):
            observations, rewards, ended = self._advance(actions)
            observations, rewards = _float32(observations), _float32(rewards)
            done = ended | (self._time >= self.max_episode_steps)
        self._check_finite("a reward", rewards[:, None], self._running)
        self._running &= ~done
        self._check_finite("an observation", observations, self._running)
        return Step(observations, rewards, done)

    def _check_finite(self, what: str, values: np.ndarray, counted: np.ndarray) -> None:
        """Raise a UserError if a number that counts is none: values [N, ...]."""
        if np.isfinite(values).all():
            return
        bad = counted & ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise UserError(
                f"{self._name} returned {what} with NaN or infinity in episode "
                f"{bad.argmax()} of {self.num_envs}, after {self._time} steps; {MEND}"
            )

    def reset(self) -> tuple[EnvState, Array]:
        """Start all episodes from their seeds; the state stays with the engine."""
        return (), self.host_reset()

    def step(self, state: EnvState, actions: Array) -> tuple[EnvState, Step]:
        """Advance each episode by one action [N, A], from inside a compiled program."""
        shapes = self.all_over()
        return state, io_callback(self.callback, shapes, actions, ordered=True)

    def check(self) -> None:
        """Raise what `host_step` raised since the reset, if it did.

        Call it when the compiled program's results have arrived.
        """
        if self._error is not None:
            raise self._error

    def callback(self, actions: Array) -> Step:
        """Step the engine, or say that all is over if that fails or has failed."""
        if self._error is None:
            try:
                return self.host_step(actions)
            except Exception as error:
                self._error = error
        return self.all_over()

    def all_over(self) -> Step:
        """Return an answer that ends every episode and cannot pass for a result."""
        n = self.num_envs
        return Step(
            observations=np.full((n, self.observation_size), np.nan, np.float32),
            rewards=np.full(n, np.nan, np.float32),
            done=np.ones(n, bool),
        )


def _float32(values: np.ndarray) -> np.ndarray:
    """Return `values` in float32, infinite where that is too small for them."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def usable_cores() -> int:
    """Count the cores this process may use, fewer than the machine's in a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
