"""Environments behind one batched protocol, by name, and their seeds."""

from collections.abc import Sequence
from dataclasses import replace

import envpool
import numpy as np
from ml_collections import ConfigDict

from dt_jax.data.minari import PREFIX as MINARI
from dt_jax.data.registry import DatasetSpec, all_specs
from dt_jax.envs import envpool_env, gym_env, gymnasium_env, minari_env
from dt_jax.envs.adroit import AdroitEnv
from dt_jax.envs.antmaze import AntMaze
from dt_jax.envs.base import BatchedEnv, HostEnv
from dt_jax.envs.envpool_env import EnvPoolEnv
from dt_jax.envs.gym_env import GymEnv
from dt_jax.envs.gymnasium_env import GymnasiumEnv
from dt_jax.envs.maze2d import Maze2D
from dt_jax.envs.minari_env import MinariEnv
from dt_jax.utils.errors import UserError

_LOCOMOTION = {
    "halfcheetah": "HalfCheetah-v4",
    "hopper": "Hopper-v4",
    "walker2d": "Walker2d-v4",
}
_ADROIT = ("pen", "door", "hammer", "relocate")
# Of environments that are not D4RL's, the family is the engine.
_ENGINES = {
    "envpool": EnvPoolEnv,
    "gymnasium": GymnasiumEnv,
    "gym": GymEnv,
    "minari": MinariEnv,
}


def lookup(
    env_name: str,
    backend: str = "auto",
    reference_scores: tuple[float, float] | None = None,
) -> DatasetSpec:
    """Return the dataset and the environment that `env_name` stands for.

    Args:
      env_name: a dataset of D4RL's or a demo one; "minari:" and the id of a dataset of
        Minari's; else an environment of EnvPool's or Gymnasium's, which is built once
        to learn its sizes and bounds.
      backend: "gym" asks the user's own gym alone; not for a dataset of Minari's.
      reference_scores: ref_min and ref_max, where they are to be others.

    Raises:
      UserError: there is no such dataset or environment, or it can't be used.
    """
    if env_name.startswith(MINARI):
        spec = minari_env.describe(env_name)
    elif env_name.lower().startswith(MINARI):
        hint = f"Minari's begin with {MINARI!r}"
        raise UserError(f"unknown env_name {env_name!r}; {hint}")
    elif backend == "gym":
        spec = gym_env.describe(env_name)
    elif env_name in all_specs():
        spec = all_specs()[env_name]
    elif env_name in envpool.list_all_envs():
        spec = envpool_env.describe(env_name)
    else:
        spec = gymnasium_env.describe(env_name)
    if reference_scores is None:
        return spec
    ref_min, ref_max = reference_scores
    return replace(spec, ref_min=ref_min, ref_max=ref_max)


def of_config(config: ConfigDict) -> DatasetSpec | None:
    """Return the dataset and the environment that a run's `env_name` stands for."""
    if config.env_name is None:
        return None
    return lookup(config.env_name, config.env_backend, config.reference_scores)


def make(spec: DatasetSpec, seeds: Sequence[int]) -> HostEnv:
    """Build the environment that `spec` is scored in, one episode for each seed."""
    limit = spec.max_episode_steps
    if spec.family in _ENGINES:
        return _ENGINES[spec.family](spec.name, seeds, limit)
    if spec.family == "antmaze":
        return AntMaze(spec.maze, seeds, limit)
    if spec.family == "maze2d":
        return Maze2D(spec.maze, seeds, limit)
    if spec.family in _ADROIT:
        return AdroitEnv(spec.family, seeds, limit)
    return EnvPoolEnv(_LOCOMOTION[spec.family], seeds, limit)


def may_run_side_by_side(spec: DatasetSpec) -> bool:
    """Tell whether two threads may each step some of the environments of `spec`.

    Not those of packages that nobody here has written: they might share something, a
    random generator say, and then no evaluation would be like the one before.
    """
    return _ENGINES.get(spec.family, EnvPoolEnv) is EnvPoolEnv


def episode_seeds(seed: int | Sequence[int], episodes: int) -> list[int]:
    """Return distinct int32 seeds; that of episode i does not depend on `episodes`.

    Args:
      seed: not negative; more numbers after it tell streams of one seed apart, as
        long as the last is not 0, for (7, 0) is the same as 7.
      episodes: how many seeds.
    """
    sequence = np.random.SeedSequence(seed)
    draws = episodes
    while True:  # a word of generate_state does not depend on how many are asked for
        words = sequence.generate_state(draws) >> 1
        distinct = list(dict.fromkeys(words.tolist()))
        if len(distinct) >= episodes:
            return distinct[:episodes]
        draws *= 2


__all__ = [
    "BatchedEnv",
    "episode_seeds",
    "lookup",
    "make",
    "may_run_side_by_side",
    "of_config",
]
