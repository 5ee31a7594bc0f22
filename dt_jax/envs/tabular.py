"""Small environments given by a table, in which an algorithm's answer is known.

Observations are one-hot states, actions one-hot choices, of which the largest counts.

- "corridor" asks for stitching. Its data has returns of 0 and 1 from the start, and of
  10 from elsewhere; half of a trajectory of each, joined, returns 10 from the start.
- "gambling" has the returns 5 and 1 in the data. Only 1 can be achieved on purpose:
  5 is one of two equally likely outcomes of an action, the other is -15
  (Paster et al., 2022, arXiv 2205.15967, section 5.1).
- "grid" asks for stitching in more steps: a goal in the far corner of 6 x 6 states. Its
  data is random, with returns far below the best one (Yamagata et al., 2023, arXiv
  2209.03993, section 5.1).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dt_jax.envs.base import HostEnv


class Table(NamedTuple):
    """Transitions with U equally likely outcomes, from state 0.

    Attributes:
      next_states: [S, A, U] int.
      rewards: [S, A, U].
      done: [S, A, U] bool.
    """

    next_states: np.ndarray
    rewards: np.ndarray
    done: np.ndarray


def corridor() -> Table:
    """Return the corridor of the states S, S' and M, in which S is the start."""
    next_states, rewards, done = _empty(3, 2, 1)
    next_states[0, 0], done[0, 0] = 2, False  # S -> M
    rewards[0, 1] = 1  # S -> end
    next_states[1, 1], done[1, 1] = 2, False  # S' -> M
    rewards[2, 1] = 10  # M -> end
    return Table(next_states, rewards, done)


def gambling() -> Table:
    """Return the gambling environment: two outcomes of each of three first actions."""
    next_states, rewards, done = _empty(7, 3, 2)
    next_states[0] = [[1, 2], [3, 4], [5, 6]]
    done[0] = False
    rewards[1:] = np.reshape([5, -15, 1, -6, 1, 1], (6, 1, 1))
    return Table(next_states, rewards, done)


def grid() -> Table:
    """Return a grid to cross from corner to corner by eight moves in each state.

    A step returns -10, and the one to the goal 90. The number of a move differs from
    state to state, and one that leaves the grid stops at its edge.
    """
    size = 6
    next_states, rewards, done = _empty(size**2, 8, 1)
    steps = [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)]
    for state in range(size**2):
        for action in range(8):
            x, y = np.add((state % size, state // size), steps[(action - state) % 8])
            x, y = np.clip((x, y), 0, size - 1)
            next_states[state, action] = x + size * y
    done[:] = next_states == size**2 - 1
    rewards[:] = np.where(done, 90, -10)
    return Table(next_states, rewards, done)


def _empty(states: int, actions: int, outcomes: int) -> Table:
    """Return a table in which every action ends the episode in its state, for 0."""
    shape = states, actions, outcomes
    same = np.broadcast_to(np.arange(states)[:, None, None], shape).copy()
    return Table(same, np.zeros(shape), np.ones(shape, bool))


TABLES: dict[str, Callable[[], Table]] = {
    "corridor": corridor,
    "gambling": gambling,
    "grid": grid,
}


class Tabular(HostEnv):
    """N episodes in a table's environment.

    Args:
      name: a key of TABLES.
      seeds: one per episode; they decide the outcomes.
      max_episode_steps: the time limit.
    """

    def __init__(self, name: str, seeds: Sequence[int], max_episode_steps: int):
        self.table = TABLES[name]()
        states, actions, _ = self.table.rewards.shape
        self.seeds = list(seeds)
        sizes = len(seeds), states, actions
        super().__init__(name, sizes, max_episode_steps, action_bounds=(0.0, 1.0))

    def _start(self) -> np.ndarray:
        self._states = np.zeros(self.num_envs, int)
        shape = self.max_episode_steps, self.table.rewards.shape[2]
        draws = [np.random.default_rng(seed).random(shape[0]) for seed in self.seeds]
        self._outcomes = (np.array(draws) * shape[1]).astype(int)  # [N, steps]
        return self._observations()

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        where = self._states, actions.argmax(axis=1), self._outcomes[:, self._time - 1]
        self._states, rewards, done = (array[where] for array in self.table)
        return self._observations(), rewards, done

    def _observations(self) -> np.ndarray:
        return np.eye(self.observation_size)[self._states]
