"""Datasets of the environments in `dt_jax.envs.tabular`."""

from collections.abc import Callable

import numpy as np

from dt_jax.data.registry import EnvSpec
from dt_jax.envs.tabular import Tabular
from dt_jax.rollout.episodes import Episode, run_episodes

ACTION_NOISE = 0.0
_EPISODES = 1000  # played together


def collect(
    spec: EnvSpec, steps: int, seed: int, advance: Callable[[int], object]
) -> list[list[Episode]]:
    """Return whole episodes with at least `steps` transitions; see `collect_demo`.

    The corridor's are its three trajectories in turn, the others' uniformly random; the
    grid's have at most 49 steps.
    """
    if spec.env_id == "corridor":
        three = [
            _corridor_episode([0, 2], [0, 0], [0, 0]),
            _corridor_episode([1, 2], [1, 1], [0, 10]),
            _corridor_episode([0], [1], [1]),
        ]
        advance(steps)
        return [three * -(-steps // 5)]
    rng, episodes, done = np.random.default_rng(seed), list[Episode](), 0
    limit = 49 if spec.env_id == "grid" else spec.max_episode_steps
    while done < steps:
        seeds = rng.integers(2**31, size=_EPISODES).tolist()
        played = run_episodes(Tabular(spec.env_id, seeds, limit), _Uniform(spec, rng))
        for episode in played:
            if done < steps:
                episodes.append(episode)
                done += len(episode.rewards)
                advance(len(episode.rewards))
    return [episodes]


class _Uniform:
    """Chooses each action with the same probability."""

    def __init__(self, spec: EnvSpec, rng: np.random.Generator):
        self._actions, self._rng = np.eye(spec.action_size, dtype=np.float32), rng

    def act(
        self,
        observations: np.ndarray,
        rewards: np.ndarray | None = None,
        done: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return one-hot actions [N, A]."""
        n, count = len(observations), len(self._actions)
        return self._actions[self._rng.integers(count, size=n)]


def _corridor_episode(
    states: list[int], actions: list[int], rewards: list[float]
) -> Episode:
    last = np.arange(len(states)) == len(states) - 1
    return Episode(
        np.eye(3, dtype=np.float32)[states],
        np.eye(2, dtype=np.float32)[actions],
        np.array(rewards, np.float32),
        terminals=last,
        timeouts=np.zeros_like(last),
    )
