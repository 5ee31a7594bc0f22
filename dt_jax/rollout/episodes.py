"""Whole episodes as arrays, from recorded rollouts or from any policy in Python."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np

from dt_jax.envs.base import HostEnv
from dt_jax.rollout.rollout import Recording
from dt_jax.types import Array


class Episode(NamedTuple):
    """One whole episode of T steps, as D4RL's files hold it."""

    observations: np.ndarray  # [T, S] float32, before each action
    actions: np.ndarray  # [T, A] float32
    rewards: np.ndarray  # [T] float32
    terminals: np.ndarray  # [T] bool, whether the action ended the episode
    timeouts: np.ndarray  # [T] bool, whether the time limit did
    infos: Mapping[str, np.ndarray] = MappingProxyType({})  # by name, [T, ...]


class HostPolicy(Protocol):
    """A policy in Python: `Policy`, or a behaviour policy that collects data."""

    def act(
        self,
        observations: np.ndarray,
        rewards: np.ndarray | None = None,
        done: np.ndarray | None = None,
    ) -> Array:
        """Return actions [N, A] for observations [N, S].

        From the second step on, with the rewards [N] and ends [N] of the previous one.
        """


def run_episodes(env: HostEnv, policy: HostPolicy) -> list[Episode]:
    """Run one whole episode in each environment, in the order of their seeds.

    All are kept, so that long episodes are not less likely than short ones.
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
    recording = Recording(*(np.stack(arrays) for arrays in zip(*steps, strict=True)))
    return split_episodes(recording, lengths, env.max_episode_steps)


def split_episodes(
    recording: Recording, lengths: np.ndarray, max_episode_steps: int
) -> list[Episode]:
    """Return the episodes of a recording, cut at lengths [N].

    An episode of max_episode_steps timed out.
    """
    episodes = []
    for i, length in enumerate(lengths):
        observations, actions, rewards = (
            np.asarray(array)[:length, i] for array in recording
        )
        last = np.arange(length) == length - 1
        timed_out = length == max_episode_steps
        episodes.append(
            Episode(observations, actions, rewards, last & ~timed_out, last & timed_out)
        )
    return episodes
