"""Environments of an installed `gym` of any version, D4RL's if d4rl is installed."""

import inspect
import io
from contextlib import chdir, redirect_stderr
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from dt_jax.data.registry import EnvSpec, all_specs
from dt_jax.envs.base import wrap_build_errors
from dt_jax.envs.gymnasium_env import GymnasiumEnv, closing_env
from dt_jax.envs.spaces import spec_from_spaces
from dt_jax.utils.errors import UserError


def describe(env_name: str, /, **options: Any) -> EnvSpec:
    """Return the spec of a gym environment, and of the D4RL dataset of that name.

    Args:
      env_name: gym's name.
      **options: further arguments of the environment.

    Raises:
      UserError: gym is not installed, it cannot make the environment, or the spaces
        are not vectors.
    """
    # chdir(".") restores the working folder: no data has been read yet.
    with (
        chdir("."),
        wrap_build_errors(env_name),
        closing_env(make(env_name, **options)) as env,
    ):
        limit = env.spec.max_episode_steps
        spaces = env.observation_space, env.action_space
        ref_min, ref_max = _reference_scores(env)
    spec = spec_from_spaces(env_name, "gym", *spaces, limit)
    known = all_specs().get(env_name)
    if known is not None:
        copied = ("family", "maze", "url", "ref_min", "ref_max")
        spec = replace(spec, **{key: getattr(known, key) for key in copied})
    if ref_min is not None:
        spec = replace(spec, ref_min=ref_min, ref_max=ref_max)
    return spec


def make(env_id: str, /, **options: Any) -> Any:
    """Return gym's environment without its time limit.

    Raises:
      UserError: gym is not installed, or cannot make the environment.
    """
    gym = _import("gym")
    if gym is None:
        raise UserError("env_backend=gym needs gym: pip install 'dt_jax[gym]'")
    d4rl = _import("d4rl")  # registers its environments
    if "disable_env_checker" in inspect.signature(gym.make).parameters:
        options["disable_env_checker"] = True  # gym 0.26's checker breaks on NumPy 2
    try:
        env = gym.make(env_id, **options)
    except (Exception, SystemExit) as error:  # also errors of the constructor
        reason = " ".join(str(error).split()).removesuffix(".")[:300]
        hint = "" if d4rl else "; D4RL's environments need d4rl, which is not installed"
        raise UserError(f"gym cannot make {env_id!r}: {reason}{hint}") from error
    # TimeLimit of gym 0.26 expects five values from a step and fails on environments
    # that return four; HostEnv applies the limit instead.
    return env.env if type(env).__name__ == "TimeLimit" else env


def _import(package: str) -> Any:
    """Return a package, or None if it is not installed."""
    if find_spec(package) is None:
        return None
    try:
        with redirect_stderr(io.StringIO()):  # gym prints a deprecation notice
            return import_module(package)
    except Exception as error:  # mujoco-py raises many kinds
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"env_backend=gym: {package} is installed but cannot be imported: {reason}"
        ) from error


def _reference_scores(env: Any) -> tuple[float, float] | tuple[None, None]:
    """Return the returns that the environment itself scores as 0 and 1, if any.

    D4RL's get_normalized_score is (return - ref_min) / (ref_max - ref_min).
    """
    try:
        at_zero, at_one = map(env.get_normalized_score, (0.0, 1.0))
    except (AttributeError, ValueError):  # no such method; d4rl has no references
        return None, None
    width = 1 / (at_one - at_zero)
    return -at_zero * width, (1 - at_zero) * width


class GymEnv(GymnasiumEnv):
    """N environments of `gym`, stepped one after the other.

    Old environments are seeded by env.seed and return four values from a step; newer
    ones by reset(seed=...) and return five. An environment with neither is not seeded.
    """

    _make = staticmethod(make)

    @staticmethod
    def _reset_one(env: Any, seed: int) -> Any:
        if "seed" in inspect.signature(env.unwrapped.reset).parameters:
            result = env.reset(seed=seed)
        else:
            if callable(getattr(env, "seed", None)):
                env.seed(seed)
            result = env.reset()
        return result[0] if isinstance(result, tuple) else result

    @staticmethod
    def _step_one(env: Any, action: np.ndarray) -> tuple[Any, ...]:
        observation, reward, *ends, _ = env.step(action)
        return observation, reward, *ends
