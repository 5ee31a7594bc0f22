"""Environments behind one batched protocol, their seeds and their scores."""

from collections.abc import Sequence

import numpy as np

from dt_jax.envs.adroit import AdroitEnv
from dt_jax.envs.antmaze import AntMaze
from dt_jax.envs.base import BatchedEnv, HostEnv
from dt_jax.envs.envpool_env import EnvPoolEnv
from dt_jax.registry import DatasetSpec

_LOCOMOTION = {
    "halfcheetah": "HalfCheetah-v4",
    "hopper": "Hopper-v4",
    "walker2d": "Walker2d-v4",
}
_ADROIT = ("pen", "door", "hammer", "relocate")


def make(spec: DatasetSpec, seeds: Sequence[int]) -> HostEnv:
    """Build the environment that `spec` is scored in, one episode for each seed."""
    limit = spec.max_episode_steps
    if spec.family == "antmaze":
        return AntMaze(spec.maze, seeds, limit)
    if spec.family in _ADROIT:
        return AdroitEnv(spec.family, seeds, limit)
    return EnvPoolEnv(_LOCOMOTION[spec.family], seeds, limit)


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


__all__ = ["BatchedEnv", "episode_seeds", "make"]
