"""The environment that a Minari dataset was recorded in, or D4RL's where that fits."""

import io
from contextlib import redirect_stderr
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box
from gymnasium.wrappers import TransformObservation

from dt_jax.data import minari
from dt_jax.data.registry import DatasetSpec
from dt_jax.data.schema import RawData
from dt_jax.envs import minari_d4rl
from dt_jax.envs.gymnasium_env import GymnasiumEnv
from dt_jax.envs.spaces import building, spec_from_spaces
from dt_jax.utils.errors import UserError

# What helps where the dataset's environment is of no use.
_ELSEWHERE = (
    "eval_episodes=0 trains without it, and dt_jax.cli.evaluate takes another env_name"
)


def describe(env_name: str) -> DatasetSpec:
    """Return what is known of a Minari dataset and of how it is scored.

    Args:
      env_name: "minari:" and the dataset's id; a missing one is downloaded.

    Raises:
      UserError: there is no such dataset, or its spaces can't be used.
    """
    with minari.quiet():
        dataset = minari.open_dataset(env_name)
        like = minari_d4rl.scored_as(dataset)
        if like is not None:
            return replace(like, name=env_name, url=None)
        seen, env_spec = dataset.observation_space, dataset.env_spec
        _, observation_space = minari_d4rl.layout(seen, env_spec, env_name)
        metadata = dataset.storage.metadata
    limit = _max_episode_steps(dataset, metadata)
    spaces = observation_space, dataset.action_space
    spec = spec_from_spaces(env_name, "minari", *spaces, limit)
    ref_min, ref_max = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if ref_min is None or ref_max is None or not ref_min < ref_max:
        return spec
    return replace(spec, ref_min=float(ref_min), ref_max=float(ref_max))


def read(env_name: str) -> RawData:
    """Read a Minari dataset, in D4RL's form where it is of one of D4RL's tasks.

    Raises:
      UserError: there is no such dataset, or it can't be used.
    """
    with minari.quiet():
        dataset = minari.open_dataset(env_name)
        return minari.read(dataset, minari_d4rl.converter(dataset))


class MinariEnv(GymnasiumEnv):
    """N environments as a Minari dataset says that it is to be evaluated in."""

    @staticmethod
    def _build(env_id: str, **options: Any) -> Any:
        # Gymnasium-Robotics prints a notice when it is imported.
        with minari.quiet(), redirect_stderr(io.StringIO()):
            dataset = minari.open_dataset(env_id)
            env = _recover(dataset, env_id, **options)
            seen, env_spec = dataset.observation_space, dataset.env_spec
            _, recorded = minari_d4rl.layout(seen, env_spec, env_id)
            flatten, given = minari_d4rl.layout(
                env.observation_space, env.spec, f"the environment of {env_id}"
            )
            env = TransformObservation(env, flatten, given)
        if given.shape != recorded.shape:
            shapes = f"shape {recorded.shape}", f"shape {given.shape}"
            raise _other(env_id, "observations", *shapes)
        if not _same_bounds(dataset.action_space, env.action_space):
            raise _other(env_id, "actions", dataset.action_space, env.action_space)
        return env


def _recover(dataset: Any, env_name: str, **options: Any) -> gymnasium.Env:
    if dataset.env_spec is None and "eval_env_spec" not in dataset.storage.metadata:
        raise UserError(
            f"{env_name} doesn't say in which environment it was recorded: {_ELSEWHERE}"
        )
    with building(f"the environment of {env_name}"):
        minari.check_environments(env_name, dataset.storage.metadata)
        return dataset.recover_environment(
            eval_env=True, disable_env_checker=True, **options
        )


def _same_bounds(recorded: Box, given: Any) -> bool:
    if not isinstance(given, Box):
        return False
    pairs = (recorded.low, given.low), (recorded.high, given.high)
    return all(np.array_equal(np.float32(a), np.float32(b)) for a, b in pairs)


def _other(env_name: str, what: str, recorded: Any, given: Any) -> UserError:
    line = (
        f"{env_name} holds {what} of {recorded}, and the environment that it names for "
        f"evaluation has {given}; they must be the same: {_ELSEWHERE}"
    )
    return UserError(" ".join(line.split()))  # long bounds are printed in rows


def _max_episode_steps(dataset: Any, metadata: dict[str, Any]) -> int | None:
    """Return the time limit of evaluation, where there is one."""
    recorded = metadata.get("eval_env_spec")
    env_spec = EnvSpec.from_json(recorded) if recorded else dataset.env_spec
    return env_spec.max_episode_steps if env_spec else None
