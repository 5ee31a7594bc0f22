"""The evaluation environment of a Minari dataset: its own, or D4RL's if it matches."""

import io
from contextlib import redirect_stderr
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs import registration
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import TransformObservation

from dt_jax.data import minari
from dt_jax.data.registry import EnvSpec
from dt_jax.data.schema import RawData
from dt_jax.envs import minari_d4rl
from dt_jax.envs.base import wrap_build_errors
from dt_jax.envs.gymnasium_env import GymnasiumEnv, refuse_learning_wrappers
from dt_jax.envs.spaces import spec_from_spaces
from dt_jax.utils.errors import UserError

# What to do if the dataset's environment cannot be used.
_REMEDY = (
    "train with eval_episodes=0, or evaluate in another environment with "
    "python -m dt_jax evaluate --env_name"
)

_LEARNING_WRAPPERS = "NormalizeObservation", "NormalizeReward"


def describe(env_name: str) -> EnvSpec:
    """Return the spec of a Minari dataset's evaluation environment.

    Args:
      env_name: "minari:" and the dataset's id; a missing dataset is downloaded.

    Raises:
      UserError: the dataset does not exist, or its spaces are not supported.
    """
    with minari.quiet():
        dataset = minari.open_dataset(env_name)
        d4rl = minari_d4rl.matching_spec(dataset)
        if d4rl is not None:
            return replace(d4rl, name=env_name, url=None)
        space, env_spec = dataset.observation_space, dataset.env_spec
        _, observation_space = minari_d4rl.flattener(space, env_spec, env_name)
        metadata = dataset.storage.metadata
    if recorded := metadata.get("eval_env_spec"):
        env_spec = registration.EnvSpec.from_json(recorded)
    limit = env_spec.max_episode_steps if env_spec else None
    spaces = observation_space, dataset.action_space
    spec = spec_from_spaces(env_name, "minari", *spaces, limit)
    ref_min, ref_max = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if ref_min is None or ref_max is None or not ref_min < ref_max:
        return spec
    return replace(spec, ref_min=float(ref_min), ref_max=float(ref_max))


def read(env_name: str) -> RawData:
    """Read a Minari dataset, converted to D4RL's form if it is of a D4RL task.

    Raises:
      UserError: the dataset does not exist, or it is not supported.
    """
    with minari.quiet():
        dataset = minari.open_dataset(env_name)
        return minari.read(dataset, minari_d4rl.converter(dataset))


class MinariEnv(GymnasiumEnv):
    """N copies of the evaluation environment that a Minari dataset names."""

    @staticmethod
    def _make(env_id: str, /, **options: Any) -> Any:
        # Gymnasium-Robotics prints a notice when it is imported.
        with minari.quiet(), redirect_stderr(io.StringIO()):
            dataset = minari.open_dataset(env_id)
            env = _recover(dataset, env_id, **options)
            wrappers = dataset.env_spec.additional_wrappers if dataset.env_spec else ()
            learnt = [w.name for w in wrappers if w.name in _LEARNING_WRAPPERS]
            refuse_learning_wrappers(env, env_id, _REMEDY, learnt)
            space, env_spec = dataset.observation_space, dataset.env_spec
            _, recorded = minari_d4rl.flattener(space, env_spec, env_id)
            flatten, returned = minari_d4rl.flattener(
                env.observation_space, env.spec, f"the environment of {env_id}"
            )
            env = TransformObservation(env, flatten, returned)
        if returned.shape != recorded.shape:
            shapes = f"shape {recorded.shape}", f"shape {returned.shape}"
            raise _mismatch(env_id, "observations", *shapes)
        if not _same_actions(dataset.action_space, env.action_space):
            raise _mismatch(env_id, "actions", dataset.action_space, env.action_space)
        return env


def _recover(dataset: Any, env_name: str, /, **options: Any) -> gymnasium.Env:
    if dataset.env_spec is None and "eval_env_spec" not in dataset.storage.metadata:
        raise UserError(f"{env_name} does not name its environment: {_REMEDY}")
    with wrap_build_errors(f"the environment of {env_name}"):
        minari.check_environments(env_name, dataset.storage.metadata)
        return dataset.recover_environment(
            eval_env=True, **{"disable_env_checker": True} | options
        )


def _same_actions(recorded: Box | Discrete, actual: Any) -> bool:
    if isinstance(recorded, Discrete) or not isinstance(actual, Box):
        return recorded == actual
    pairs = (recorded.low, actual.low), (recorded.high, actual.high)
    return all(np.array_equal(np.float32(a), np.float32(b)) for a, b in pairs)


def _mismatch(env_name: str, what: str, recorded: Any, actual: Any) -> UserError:
    line = (
        f"{env_name} has {what} of {recorded}, but its evaluation environment has "
        f"{actual}: {_REMEDY}"
    )
    return UserError(" ".join(line.split()))  # long bounds are printed in rows
