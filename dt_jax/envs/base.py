"""The interface of every environment: N episodes stepped together as arrays."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
from jax.experimental import io_callback

from dt_jax.types import Array, Step
from dt_jax.utils.errors import UserError
from dt_jax.utils.signals import is_ctrl_c

EnvState = Any  # a pytree; () where the state lives outside JAX

_REMEDY = "fix the environment, or set eval_episodes=0"


class BatchedEnv(Protocol):
    """N environments, each with its own seed, stepped together.

    What an environment returns after the first `done` of an episode is undefined: the
    caller ignores it.
    """

    num_envs: int
    observation_size: int
    action_size: int

    def reset(self) -> tuple[EnvState, Array]:
        """Start all episodes from their seeds; every call starts the same episodes.

        Returns:
          The state and the first observations [N, S].
        """

    def step(self, state: EnvState, actions: Array) -> tuple[EnvState, Step]:
        """Advance each episode by one action [N, A]; can be traced by JAX."""

    def check(self) -> None:
        """Raise the first error of a compiled program; call it after the program."""


class HostEnv(ABC):
    """An engine outside JAX, stepped by an ordered callback.

    Whoever builds it closes it.

    io_callback works neither under vmap nor in a jit over several devices: keep the
    rollout on one local device.

    An exception that leaves a callback reaches the caller as a JaxRuntimeError with
    the whole traceback as its text, and JAX logs it once more. So exceptions are held
    back: after the first one every episode is done, with NaN observations and rewards,
    which ends the rollout, and `check` raises the exception itself.

    Args:
      name: the environment's name in error messages.
      sizes: N, S and A.
      max_episode_steps: the time limit; reaching it ends the episode.
      action_bounds: actions are clipped to them; numbers, or an array [A] each.

    Attributes:
      thread_safe: whether two threads may step two instances at the same time.
      seeds: N; a reset starts the episodes from them. The caller may change them.
    """

    thread_safe = True
    seeds: list[int]

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
        self._error: BaseException | None = None

    def close(self) -> None:  # noqa: B027 - optional
        """End what the engine has started, such as other programs."""

    @abstractmethod
    def _start(self) -> np.ndarray:
        """Start all episodes from their seeds and return observations [N, S]."""

    @abstractmethod
    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        """Step the engine; return observations [N, S], rewards [N] and ends [N].

        Args:
          actions: [N, A] float64, within the bounds. Episodes that have ended
            (`self._running` is false) get 0 and need not be stepped.
        """

    def host_reset(self) -> np.ndarray:
        """Start all episodes from their seeds and return observations [N, S]."""
        self._error = None
        self._running[:] = True
        self._time = 0
        with _wrap_errors(f"{self._name} failed at a reset", _REMEDY):
            observations = _float32(self._start())
        self._check_finite("an observation", observations, self._running)
        return observations

    def host_step(self, actions: Array) -> Step:
        """Advance each episode by one action [N, A], clipped, without JAX.

        Discrete actions are one-hot, or choices [N] as `Policy.act` returns them.
        Actions of episodes that have ended are ignored.

        Raises:
          UserError: the engine fails, or an action, observation or reward is not
            finite.
        """
        actions = np.asarray(actions)
        if actions.ndim == 1:
            actions = np.eye(self.action_size)[actions]
        actions = np.where(self._running[:, None], actions.astype(np.float64), 0)
        bad = np.isnan(actions).any(axis=-1)
        if bad.any():
            raise UserError(
                f"{self._name} was given a NaN action in episode {bad.argmax()} of "
                f"{self.num_envs}; the policy's parameters or inputs are not finite"
            )
        actions = np.clip(actions, *self._action_bounds)
        self._time += 1
        what = f"{self._name} failed at step {self._time} of an episode"
        with _wrap_errors(what, _REMEDY):
            observations, rewards, ended = self._advance(actions)
            observations, rewards = _float32(observations), _float32(rewards)
            done = ended | (self._time >= self.max_episode_steps)
        self._check_finite("a reward", rewards[:, None], self._running)
        self._running &= ~done
        self._check_finite("an observation", observations, self._running)
        return Step(observations, rewards, done)

    def _check_finite(self, what: str, values: np.ndarray, checked: np.ndarray) -> None:
        """Raise a UserError if `values` [N, ...] are not finite where `checked` [N]."""
        if np.isfinite(values).all():
            return
        bad = checked & ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise UserError(
                f"{self._name} returned {what} with NaN or infinity in episode "
                f"{bad.argmax()} of {self.num_envs}, after {self._time} steps; "
                f"{_REMEDY}"
            )

    def reset(self) -> tuple[EnvState, Array]:
        """Start all episodes from their seeds; the engine keeps the state."""
        return (), self.host_reset()

    def step(self, state: EnvState, actions: Array) -> tuple[EnvState, Step]:
        """Advance each episode by one action [N, A], inside a compiled program."""
        shapes = self.failed_step()
        return state, io_callback(self.callback, shapes, actions, ordered=True)

    def check(self) -> None:
        """Raise the error that `callback` has held back since the reset, if any.

        Call it when the compiled program's results have arrived.
        """
        if self._error is not None:
            raise self._error

    def callback(self, actions: Array) -> Step:
        """Step the engine; after an error, return `failed_step` instead."""
        if self._error is None:
            try:
                return self.host_step(actions)
            except BaseException as error:
                self._error = error
        return self.failed_step()

    def failed_step(self) -> Step:
        """Return a step that ends every episode, with NaN observations and rewards."""
        n = self.num_envs
        return Step(
            observations=np.full((n, self.observation_size), np.nan, np.float32),
            rewards=np.full(n, np.nan, np.float32),
            done=np.ones(n, bool),
        )


class EnvGroup:
    """Environments of equal sizes, each with its own episodes.

    The state is the index of the part: one compiled program can step any of them.

    Args:
      parts: the environments.
    """

    def __init__(self, parts: Sequence[HostEnv]):
        self.parts = parts

    def reset(self, i: int) -> tuple[EnvState, Array]:
        """Start the episodes of part `i` from their seeds."""
        return np.int32(i), self.parts[i].host_reset()

    def step(self, state: EnvState, actions: Array) -> tuple[EnvState, Step]:
        """Advance a part's episodes by one action [N, A], inside a compiled program."""
        shapes = self.parts[0].failed_step()
        return state, io_callback(self._step, shapes, state, actions, ordered=True)

    def check(self) -> None:
        """Raise the first error that one of the parts has held back."""
        for part in self.parts:
            part.check()

    def _step(self, i: Array, actions: Array) -> Step:
        return self.parts[int(i)].callback(actions)


def wrap_build_errors(env_id: str) -> AbstractContextManager[None]:
    """Turn every error of an environment's constructor into a UserError."""
    remedy = "fix it, or choose another environment"
    return _wrap_errors(f"{env_id} cannot be built", remedy)


@contextmanager
def _wrap_errors(what: str, remedy: str) -> Iterator[None]:
    """Turn everything that an environment raises into a UserError."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        reason = " ".join(str(error).split())[:300].rstrip(".") or "no reason given"
        line = f"{what}: {type(error).__name__}: {reason}; {remedy}"
        raise UserError(line) from error


def _float32(values: np.ndarray) -> np.ndarray:
    """Return `values` as float32, infinite where they overflow."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def usable_cores() -> int:
    """Return the number of cores this process may use; containers may limit it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
