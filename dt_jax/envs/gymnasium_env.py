"""Any Gymnasium environment of vectors, or with discrete actions."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from difflib import get_close_matches
from typing import Any
from weakref import WeakSet

import envpool
import gymnasium
import numpy as np

from dt_jax.data.minari import FARAMA_PACKAGES
from dt_jax.data.registry import EnvSpec, all_specs
from dt_jax.envs.base import HostEnv, wrap_build_errors
from dt_jax.envs.mujoco_batch import mujoco
from dt_jax.envs.spaces import action_bounds, is_discrete, spec_from_spaces
from dt_jax.utils.errors import UserError

# In Gymnasium's own registry, of environments of vectors that EnvPool has as well.
_OWN_KWARGS: tuple[dict, ...] = {}, {"hardcore": True}, {"continuous": True}


def describe(env_id: str, /, **options: Any) -> EnvSpec:
    """Return the spec of a Gymnasium environment.

    Args:
      env_id: Gymnasium's name.
      **options: further arguments of the environment.

    Raises:
      UserError: the name is unknown, the environment cannot be built, or its spaces
        are not vectors.
    """
    # chdir(".") restores the working folder: no data has been read yet.
    with (
        chdir("."),
        _quiet(),
        wrap_build_errors(env_id),
        closing_env(make(env_id, **options)) as env,
    ):
        limit = env.spec.max_episode_steps if env.spec else None
        spaces = env.observation_space, env.action_space
        remedy = (
            "load them in the environment and set update_running_mean=False, or leave "
            "env_name out"
        )
        refuse_learning_wrappers(env, env_id, remedy)
    return spec_from_spaces(env_id, "gymnasium", *spaces, limit)


@contextmanager
def closing_env(env: Any) -> Iterator[Any]:
    """Close an environment at the end; an error of its close() becomes a warning."""
    try:
        yield env
    finally:
        try:
            env.close()
        except BaseException as error:
            warnings.warn(f"an environment failed to close: {error!r}", stacklevel=1)


def refuse_learning_wrappers(
    env: Any, env_name: str, remedy: str, recorded: Sequence[str] = ()
) -> None:
    """Refuse wrappers that learn statistics: the dataset lacks what they had learnt.

    Args:
      env: as Gymnasium has built it.
      env_name: for the error message.
      remedy: what to do.
      recorded: names of such wrappers that the dataset was recorded under.
    """
    names = [*recorded]
    while isinstance(env, gymnasium.Wrapper):
        learns = any(type(x).__name__ == "RunningMeanStd" for x in vars(env).values())
        if learns and getattr(env, "update_running_mean", True):
            names.append(type(env).__name__)
        env = env.env
    if names:
        raise UserError(
            f"{env_name} was recorded, or is to be evaluated, under the wrapper "
            f"{names[0]}, whose statistics are not in the dataset: {remedy}"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warning that a name without a version means the latest version."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Using the latest versioned")
        yield


def _warn(message: str) -> None:
    """Report what MuJoCo would write to MUJOCO_LOG.TXT in the working directory."""
    if "deprecated" in message:  # in Gymnasium's own models
        return
    with suppress(Warning):  # if warnings are errors: a C callback must not raise
        warnings.warn(f"MuJoCo: {message}", stacklevel=1)


def make(env_id: str, /, **options: Any) -> Any:
    """Return Gymnasium's environment.

    Raises:
      UserError: the name is unknown; the message lists the nearest names.
    """
    mujoco.set_mju_user_warning(_warn)
    try:
        return gymnasium.make(env_id, **{"disable_env_checker": True} | options)
    except gymnasium.error.UnregisteredEnv:
        names = {*all_specs(), *gymnasium.registry, *envpool.list_all_envs()}
        # Many are known: a lower cutoff finds unrelated ones.
        near = get_close_matches(env_id.rpartition(":")[-1], names, cutoff=0.75)
        raise UserError(
            f"unknown env_name {env_id!r}: neither a dataset nor an environment of "
            "EnvPool or Gymnasium" + (f"; nearest: {', '.join(near)}" if near else "")
        ) from None


def is_registered_by_user(env_id: str) -> bool:
    """Return whether the process has registered this name, and not Gymnasium.

    Also if it has registered Gymnasium's class with another time limit, arguments or
    wrappers than those of the environment that EnvPool has under this name.
    """
    spec = gymnasium.registry.get(env_id)
    if spec is None:
        return False
    if env_id in envpool.list_all_envs():
        limit = envpool.make_spec(env_id).config.max_episode_steps
        same_limit = spec.max_episode_steps in (None, limit)  # None: deprecated ones
        if not same_limit or spec.additional_wrappers or spec.kwargs not in _OWN_KWARGS:
            return True
    entry = spec.entry_point
    module = entry if isinstance(entry, str) else getattr(entry, "__module__", "")
    return re.split("[.:]", module)[0] not in FARAMA_PACKAGES


class GymnasiumEnv(HostEnv):
    """N Gymnasium environments of one kind, stepped one after the other.

    `gymnasium.make_vec` is not used because it keeps stepping ended episodes: the same
    numbers, but 100 random episodes of Hopper-v5 take 4 times as long.

    Args:
      env_id: Gymnasium's name, "Pendulum-v1"; "package:Name-v0" imports the package.
      seeds: one per episode.
      max_episode_steps: the time limit; reaching it ends the episode.
      **options: further arguments of the environment, such as render_mode.

    Attributes:
      envs: the N environments.

    Raises:
      UserError: the environment cannot be built.
    """

    thread_safe = False  # third-party code may share state, such as a random generator

    def __init__(
        self,
        env_id: str,
        seeds: Sequence[int],
        max_episode_steps: int,
        /,
        **options: Any,
    ):
        self.envs: list[Any] = []
        _OPEN.add(self)
        try:
            with _quiet(), wrap_build_errors(env_id):
                for _ in seeds:
                    self.envs.append(self._make(env_id, **options))
                observation_space = self.envs[0].observation_space
                action_space = self.envs[0].action_space
        except BaseException:
            self.close()
            raise
        bounds = action_bounds(action_space)
        sizes = len(seeds), *observation_space.shape, len(bounds[0])
        super().__init__(env_id, sizes, max_episode_steps, bounds)
        self._action_dtype = action_space.dtype
        self._discrete = is_discrete(action_space)
        self.seeds = [int(seed) for seed in seeds]
        self._observations = np.zeros(sizes[:2])  # the last one of each episode

    def close(self) -> None:
        """Close the environments; their errors become warnings."""
        while self.envs:
            with closing_env(self.envs.pop()):
                pass

    def _start(self) -> np.ndarray:
        for i, (env, seed) in enumerate(zip(self.envs, self.seeds, strict=True)):
            self._observations[i] = self._checked(self._reset_one(env, seed))
        return self._observations

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        if self._discrete:
            actions = actions.argmax(axis=1)
        actions = actions.astype(self._action_dtype)
        rewards, ended = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        for i in np.flatnonzero(self._running):
            observation, reward, *ends = self._step_one(self.envs[i], actions[i])
            self._observations[i] = self._checked(observation)
            rewards[i] = self._number("the reward", reward)
            ended[i] = any(self._number("the end of an episode", end) for end in ends)
        return self._observations, rewards, ended

    def _checked(self, observation: Any) -> Any:
        """Return an observation [S]; NumPy would broadcast other shapes."""
        if (kind := np.asarray(observation).dtype).kind not in "biuf":
            raise UserError(
                f"{self._name} returned an observation of type {kind}, expected "
                "numbers; fix the environment"
            )
        if np.shape(observation) != (self.observation_size,):
            raise UserError(
                f"{self._name} returned an observation of shape "
                f"{np.shape(observation)} but observation_space says "
                f"({self.observation_size},); fix the environment"
            )
        return observation

    def _number(self, what: str, value: Any) -> float:
        """Return a number or truth value; the text "False" would count as true."""
        array = np.asarray(value)
        if array.dtype.kind not in "biuf" or array.size != 1:
            raise UserError(
                f"{self._name} returned {value!r} as {what}, expected a number or True "
                "or False; fix the environment"
            )
        return array.item()

    # Subclasses for other packages override these three.
    _make = staticmethod(make)

    @staticmethod
    def _reset_one(env: Any, seed: int) -> Any:
        """Return the first observation [S] of the episode with this seed."""
        observation, _ = env.reset(seed=seed)
        return observation

    @staticmethod
    def _step_one(env: Any, action: Any) -> tuple[Any, ...]:
        """Return the observation [S], the reward, and what may end the episode.

        Args:
          env: as `_make` returns it.
          action: [A], or of a discrete space the choice.
        """
        observation, reward, terminated, truncated, _ = env.step(action)
        return observation, reward, terminated, truncated


_OPEN: WeakSet[GymnasiumEnv] = WeakSet()


def close_all() -> None:
    """Close every environment: the process is about to end without its builder."""
    for env in list(_OPEN):
        env.close()
