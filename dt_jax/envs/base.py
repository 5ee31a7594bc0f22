"""The one protocol of every environment: N episodes in step, arrays in and out."""

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
from jax.experimental import io_callback

from dt_jax.types import Array, Step

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
    """

    num_envs: int
    observation_size: int
    action_size: int
    _error: Exception | None = None

    @abstractmethod
    def host_reset(self) -> np.ndarray:
        """Start all episodes from their seeds and return observations [N, S]."""

    @abstractmethod
    def host_step(self, actions: np.ndarray) -> Step:
        """Advance each episode by one action [N, A], without JAX."""

    def reset(self) -> tuple[EnvState, Array]:
        """Start all episodes from their seeds; the state stays with the engine."""
        self._error = None
        return (), self.host_reset()

    def step(self, state: EnvState, actions: Array) -> tuple[EnvState, Step]:
        """Advance each episode by one action [N, A], from inside a compiled program."""
        shapes = self._all_over()
        return state, io_callback(self._callback, shapes, actions, ordered=True)

    def check(self) -> None:
        """Raise what `host_step` raised since the reset, if it did.

        Call it when the compiled program's results have arrived.
        """
        if self._error is not None:
            raise self._error

    def _callback(self, actions: Array) -> Step:
        """Step the engine, or say that all is over if that fails or has failed."""
        if self._error is None:
            try:
                return self.host_step(np.asarray(actions))
            except Exception as error:
                self._error = error
        return self._all_over()

    def _all_over(self) -> Step:
        """Return an answer that ends every episode and cannot pass for a result."""
        n = self.num_envs
        return Step(
            observations=np.full((n, self.observation_size), np.nan, np.float32),
            rewards=np.full(n, np.nan, np.float32),
            done=np.ones(n, bool),
        )
