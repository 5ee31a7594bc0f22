"""Any policy in any host environment -> whole episodes -> a file in D4RL's schema."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import h5py
import numpy as np

from dt_jax.envs.base import HostEnv
from dt_jax.types import Array
from dt_jax.utils.files import replacing


class Actor(Protocol):
    """What can be collected with: a bundled linear policy or a trained one."""

    def act(
        self,
        observations: np.ndarray,
        rewards: np.ndarray | None = None,
        done: np.ndarray | None = None,
    ) -> Array:
        """Return actions [N, A] for observations [N, S].

        From the second step on, with the rewards [N] and ends [N] of the last one.
        """


class Episode(NamedTuple):
    """One whole episode of T steps, as D4RL's files keep it."""

    observations: np.ndarray  # [T, S] float32, before each action
    actions: np.ndarray  # [T, A] float32
    rewards: np.ndarray  # [T] float32
    terminals: np.ndarray  # [T] bool, whether the action ended the task
    timeouts: np.ndarray  # [T] bool, whether it was the last for another reason
    infos: Mapping[str, np.ndarray] = MappingProxyType({})  # by name, [T, ...]


def run_episodes(env: HostEnv, policy: Actor) -> list[Episode]:
    """Run one whole episode in each of the environments, in the order of their seeds.

    All of them are kept, so that the long ones are not less likely to be.
    """
    observations, rewards, done = env.host_reset(), None, None
    running = np.ones(env.num_envs, bool)
    lengths = np.zeros(env.num_envs, int)
    steps = []
    while running.any():
        actions = np.asarray(policy.act(observations, rewards, done), np.float32)
        step = env.host_step(actions)
        steps.append((observations, actions, np.asarray(step.rewards)))
        lengths += running
        running &= ~np.asarray(step.done)
        observations, rewards, done = map(np.asarray, step)
    by_time = [np.stack(arrays) for arrays in zip(*steps, strict=True)]  # [T, N, ...]
    episodes = []
    for i, length in enumerate(lengths):
        observed, acted, rewarded = (array[:length, i] for array in by_time)
        last = np.arange(length) == length - 1
        at_limit = length == env.max_episode_steps
        episodes.append(
            Episode(observed, acted, rewarded, last & ~at_limit, last & at_limit)
        )
    return episodes


def write_d4rl(
    out: Path, episodes: Sequence[Episode], attributes: Mapping[str, str | int | float]
) -> None:
    """Write episodes one after the other as D4RL does; the same bytes for the same.

    Args:
      out: the file; it appears when it is complete, in a folder made where missing.
      episodes: at least one, all with the same infos.
      attributes: kept with the file, to say where it comes from.
    """
    *columns, infos = zip(*episodes, strict=True)
    arrays = dict(zip(Episode._fields[:-1], columns, strict=True))
    arrays |= {f"infos/{key}": [info[key] for info in infos] for key in infos[0]}
    with replacing(out) as unfinished, h5py.File(unfinished, "w") as file:
        for name, parts in arrays.items():
            file.create_dataset(name, data=np.concatenate(parts), track_times=False)
        file.attrs.update(attributes)
