"""Environments behind one batched protocol, their seeds and their scores."""

from collections.abc import Sequence

import numpy as np

from dt_jax.envs.base import BatchedEnv, HostEnv
from dt_jax.envs.envpool_env import EnvPoolEnv
from dt_jax.errors import UserError
from dt_jax.registry import DatasetSpec

_ENVPOOL_IDS = {
    "halfcheetah": "HalfCheetah-v4",
    "hopper": "Hopper-v4",
    "walker2d": "Walker2d-v4",
}


def check_built(spec: DatasetSpec) -> None:
    """Raise a UserError if the environment of `spec` is not built yet."""
    if spec.family not in _ENVPOOL_IDS:
        raise UserError(
            f"{spec.name} cannot be evaluated: there is no {spec.family} environment "
            "yet; --config.eval_episodes=0 trains without evaluation, and "
            f"{', '.join(_ENVPOOL_IDS)} can be evaluated"
        )


def make(spec: DatasetSpec, seeds: Sequence[int]) -> HostEnv:
    """Build the environment that `spec` is scored in, one episode for each seed.

    Raises:
      UserError: the environments of this family are not built yet.
    """
    check_built(spec)
    return EnvPoolEnv(_ENVPOOL_IDS[spec.family], seeds, spec.max_episode_steps)


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


__all__ = ["BatchedEnv", "check_built", "episode_seeds", "make"]
