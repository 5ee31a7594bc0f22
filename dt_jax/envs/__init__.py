"""Environments by name, behind one batched interface, and the seeds of episodes."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import envpool
import numpy as np
from ml_collections import ConfigDict

from dt_jax.data.minari import PREFIX as MINARI
from dt_jax.data.registry import EnvSpec, all_specs
from dt_jax.envs import envpool_env, gym_env, gymnasium_env, minari_env
from dt_jax.envs.adroit import AdroitEnv
from dt_jax.envs.antmaze import AntMaze
from dt_jax.envs.base import BatchedEnv, EnvGroup, HostEnv
from dt_jax.envs.envpool_env import EnvPoolEnv
from dt_jax.envs.gym_env import GymEnv
from dt_jax.envs.gymnasium_env import GymnasiumEnv
from dt_jax.envs.maze2d import Maze2D
from dt_jax.envs.minari_env import MinariEnv
from dt_jax.envs.tabular import Tabular
from dt_jax.utils.errors import UserError
from dt_jax.utils.keys import parse_arguments

# The class behind `EnvSpec.engine`, called with (env_id, seeds, max_episode_steps) and
# `EnvSpec.kwargs`.
ENGINES: dict[str, type[EnvPoolEnv | GymnasiumEnv | Maze2D | AntMaze | Tabular]] = {
    "locomotion": EnvPoolEnv,
    "adroit": AdroitEnv,
    "maze2d": Maze2D,
    "antmaze": AntMaze,
    "envpool": EnvPoolEnv,
    "gymnasium": GymnasiumEnv,
    "gym": GymEnv,
    "minari": MinariEnv,
    "tabular": Tabular,
}

# EnvPool's observations have zeros in place of the contact forces.
_WITHOUT_CONTACT_FORCES = {"Humanoid-v4", "HumanoidStandup-v4"}


def lookup(
    env_name: str,
    backend: str = "auto",
    reference_scores: tuple[float, float] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> EnvSpec:
    """Return the environment that `env_name` names.

    Args:
      env_name: a D4RL or demo dataset; "minari:" and the id of a Minari dataset; else
        an EnvPool or Gymnasium environment, which is built once to read its spaces.
      backend: "gym" looks in the installed `gym` only; ignored for Minari datasets.
      reference_scores: ref_min and ref_max, if they replace the environment's own.
      kwargs: arguments for `gymnasium.make`; with them EnvPool is not used.

    Raises:
      UserError: the name is unknown, or the environment cannot be used.
    """
    kwargs = dict(kwargs or {})
    if env_name.startswith(MINARI):
        spec = minari_env.describe(env_name)
    elif env_name.lower().startswith(MINARI):
        raise UserError(
            f"unknown env_name {env_name!r}; Minari datasets begin with {MINARI!r}"
        )
    elif backend == "gym":
        spec = gym_env.describe(env_name, **kwargs)
    elif env_name in all_specs():
        spec = all_specs()[env_name]
        if gymnasium_env.is_registered_by_user(env_name):
            warnings.warn(
                f"{env_name} is D4RL's environment here; yours of this name is "
                f"env_name=gymnasium:{env_name}",
                stacklevel=1,
            )
    elif not kwargs and _is_envpools(env_name):
        spec = envpool_env.describe(env_name)
    else:
        spec = gymnasium_env.describe(env_name, **kwargs)
    if kwargs:
        if not issubclass(ENGINES[spec.engine], GymnasiumEnv):
            raise UserError(
                f"{env_name} is D4RL's environment, which takes no env_kwargs: leave "
                "them out, or choose another environment"
            )
        spec = replace(spec, kwargs=kwargs)
    if reference_scores is None:
        return spec
    ref_min, ref_max = reference_scores
    return replace(spec, ref_min=ref_min, ref_max=ref_max)


def _is_envpools(env_name: str) -> bool:
    """Return whether EnvPool plays a name: not one that the process has registered."""
    ours = gymnasium_env.is_registered_by_user(env_name)
    known = env_name in envpool.list_all_envs()
    return known and not ours and env_name not in _WITHOUT_CONTACT_FORCES


def spec_from_config(config: ConfigDict) -> EnvSpec | None:
    """Return the environment that a run's `env_name` names; None without one."""
    if config.env_name is None:
        return None
    return lookup(
        config.env_name,
        config.env_backend,
        config.reference_scores,
        config.env_kwargs and parse_arguments(config.env_kwargs),
    )


def make(spec: EnvSpec, seeds: Sequence[int]) -> HostEnv:
    """Build the environment `spec` with one episode per seed; the caller closes it."""
    engine = ENGINES[spec.engine]
    return engine(spec.env_id, seeds, spec.max_episode_steps, **spec.kwargs)


def episode_seeds(seed: int | Sequence[int], episodes: int) -> list[int]:
    """Return distinct int32 seeds; that of episode i does not depend on `episodes`.

    Args:
      seed: not negative. Further numbers select independent streams of one seed; the
        last must not be 0, because (7, 0) is the same as 7.
      episodes: the number of seeds.
    """
    # Word i does not depend on the number of words; twice as many for repeated ones.
    words = np.random.SeedSequence(seed).generate_state(2 * episodes) >> 1
    return list(dict.fromkeys(words.tolist()))[:episodes]


__all__ = [
    "ENGINES",
    "BatchedEnv",
    "EnvGroup",
    "HostEnv",
    "episode_seeds",
    "lookup",
    "make",
    "spec_from_config",
]
