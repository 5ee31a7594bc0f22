"""The user's own `gym`, of whatever age, with D4RL's environments if d4rl is there."""

import inspect
import io
from contextlib import redirect_stderr
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from dt_jax.data.registry import DatasetSpec, all_specs
from dt_jax.envs.gymnasium_env import GymnasiumEnv
from dt_jax.envs.spaces import building, spec_from_spaces
from dt_jax.utils.errors import UserError


def describe(env_name: str) -> DatasetSpec:
    """Return what gym knows of an environment, and D4RL of a dataset of that name.

    Raises:
      UserError: gym is not installed, or can't make it, or its spaces are no vectors.
    """
    with building(env_name):
        env = _build(env_name)
        limit = env.spec.max_episode_steps
        spaces = env.observation_space, env.action_space
        ref_min, ref_max = _reference_scores(env)
        env.close()
    spec = spec_from_spaces(env_name, "gym", *spaces, limit)
    known = all_specs().get(env_name)
    if known is not None:
        spec = replace(
            spec, url=known.url, ref_min=known.ref_min, ref_max=known.ref_max
        )
    if ref_min is not None:
        spec = replace(spec, ref_min=ref_min, ref_max=ref_max)
    return spec


def _build(env_name: str) -> Any:
    """Return gym's environment, its episodes not limited in time."""
    gym = _import("gym")
    if gym is None:
        raise UserError("env_backend=gym needs gym: pip install 'dt_jax[gym]'")
    d4rl = _import("d4rl")  # it registers its environments
    options = {}
    if "disable_env_checker" in inspect.signature(gym.make).parameters:
        options["disable_env_checker"] = True  # that of gym 0.26 dies on NumPy 2
    try:
        env = gym.make(env_name, **options)
    except (Exception, SystemExit) as error:  # also what its constructor raises
        why = " ".join(str(error).split()).removesuffix(".")[:300]
        hint = "" if d4rl else "; D4RL's environments need d4rl, which is not installed"
        raise UserError(f"gym cannot make {env_name!r}: {why}{hint}") from error
    # gym 0.26's takes five values from a step, and so fails on the environments that
    # return four; HostEnv keeps the limit.
    return env.env if type(env).__name__ == "TimeLimit" else env


def _import(package: str) -> Any:
    """Return a package, or None where it is not installed."""
    if find_spec(package) is None:
        return None
    try:
        with redirect_stderr(io.StringIO()):  # gym bids farewell there, in four lines
            return import_module(package)
    except Exception as error:  # mujoco-py's, for one, are of all kinds
        why = " ".join(str(error).split())[:300]
        raise UserError(
            f"env_backend=gym: {package} is installed but cannot be imported: {why}"
        ) from error


def _reference_scores(env: Any) -> tuple[float, float] | tuple[None, None]:
    """Return the returns that the environment itself scores as 0 and 1, if any.

    D4RL's get_normalized_score is (return - ref_min) / (ref_max - ref_min).
    """
    try:
        at_zero, at_one = map(env.get_normalized_score, (0.0, 1.0))
    except (AttributeError, ValueError):  # there is none; d4rl knows no numbers for it
        return None, None
    width = 1 / (at_one - at_zero)
    return -at_zero * width, (1 - at_zero) * width


class GymEnv(GymnasiumEnv):
    """N environments of `gym`, stepped one after the other.

    Old ones are seeded by env.seed and return four values from a step; newer ones by
    reset(seed=...) and return five. Where there is neither way to seed it, an
    environment starts as it likes.
    """

    @staticmethod
    def _build(env_id: str, **options: Any) -> Any:
        return _build(env_id)

    @staticmethod
    def _reset_one(env: Any, seed: int) -> Any:
        if "seed" in inspect.signature(env.unwrapped.reset).parameters:
            answer = env.reset(seed=seed)
        else:
            if callable(getattr(env, "seed", None)):
                env.seed(seed)
            answer = env.reset()
        return answer[0] if isinstance(answer, tuple) else answer

    @staticmethod
    def _step_one(env: Any, action: np.ndarray) -> tuple[Any, Any, bool]:
        observation, reward, *ended, _ = env.step(action)
        return observation, reward, any(ended)
