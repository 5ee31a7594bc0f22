"""maze2d-umaze-demo and its like, by the protocol of D4RL's maze2d files.

A ball is sent from goal to goal, without a reset. A goal reached, or the time limit,
ends a trajectory; the next begins in the next state with a new goal, any free cell, the
one where the ball is included: a few trajectories have one row. Afterwards all rows are
rewarded for evaluation's goal. So a trajectory's return is the time it spends there:
nearly always 0, or what leaving or reaching the goal takes.

What differs from D4RL's generate_maze2d_datasets.py and relabel_maze2d_rewards.py:

- D4RL has one rollout; here one for each 4,000 steps goes on beside the others.
- D4RL's rows are rewarded for the state before the action; here, as by the environment,
  for the state after it.
- A trajectory's first observation repeats the last one's in D4RL; here it is true.
- D4RL draws goals about a cell's index and its controller rounds them; here they are
  the index.
"""

from collections.abc import Callable

import numpy as np

from dt_jax.data.registry import EnvSpec
from dt_jax.datasets.demo.episodes import Episode
from dt_jax.envs import mazes
from dt_jax.envs.maze2d import at_goal, cell_of, place, points
from dt_jax.envs.mazes import Cell, Maze

# Standard deviation. D4RL's script has it as an option, and does not tell whether its
# files were made with it; Minari's newer ones were.
ACTION_NOISE = 0.5
_ROLLOUT = 4_000  # steps
_GAIN, _DAMPING = 10.0, -1.0  # of the distance in metres, of the velocity
_CLOSE = 0.1  # metres, within which a waypoint or the goal is reached


class WaypointController:
    """D4RL's controller for N balls: cell after cell of a shortest way to the goal.

    D4RL finds the way by value iteration, one of the same length. It also asks a ball
    to move less than 0.1 m in a step where it is to have reached something, which is
    always so: velocities are clipped.

    Args:
      maze: where the balls are.
      num: N.
      rng: where the waypoints within their cells come from.
    """

    def __init__(self, maze: Maze, num: int, rng: np.random.Generator):
        self._maze, self._rng = maze, rng
        self._ways = np.zeros((num, len(maze.cells), 2))  # filled up with the goal
        self._next = np.zeros(num, int)

    @property
    def goals(self) -> np.ndarray:
        """Where each ball is sent, [N, 2]."""
        return self._ways[:, -1]

    def send(self, i: int, position: np.ndarray, goal: Cell) -> None:
        """Send ball i from a position [2] to a cell."""
        way = self._maze.path(cell_of(position), goal)
        between = np.reshape(way[1:-1], (-1, 2))
        self._ways[i] = goal
        # From a cell's centre up to its index.
        self._ways[i, : len(between)] = between - self._rng.uniform(
            0, 0.2, between.shape
        )
        self._next[i] = 0

    def arrived(self, positions: np.ndarray) -> np.ndarray:
        """Return whether the balls at `positions` [N, 2] have reached their goals."""
        return np.linalg.norm(self.goals - positions, axis=1) < _CLOSE

    def act(
        self,
        observations: np.ndarray,
        rewards: np.ndarray | None = None,
        done: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return actions [N, 2] for observations [N, 4]; the rest is not looked at."""
        positions, velocities = observations[:, :2], observations[:, 2:]
        ahead = self._ways[np.arange(len(positions)), self._next] - positions
        reached = np.linalg.norm(ahead, axis=1) < _CLOSE
        self._next = np.minimum(self._next + reached, self._ways.shape[1] - 1)
        return np.clip(_GAIN * ahead + _DAMPING * velocities, -1, 1)


def collect(
    spec: EnvSpec, steps: int, seed: int, advance: Callable[[int], None]
) -> list[list[Episode]]:
    """Return whole trajectories with `steps` transitions or a few more, at one level.

    In the file, a rollout's trajectories follow on one another.
    """
    maze, rng = mazes.maze2d(spec.maze), np.random.default_rng((seed, 1))
    rollouts = -(-steps // _ROLLOUT)
    share = -(-steps // rollouts)
    balls = points(maze, rollouts)
    controller = WaypointController(maze, rollouts, rng)
    for i in range(rollouts):
        place(balls, i, rng, maze)
        controller.send(i, balls.qpos[i], _draw_cell(maze, rng))
    lengths = np.zeros(rollouts, int)
    ages = np.zeros(rollouts, int)  # of the trajectories
    running = np.ones(rollouts, bool)
    times = []
    while running.any():
        ends = controller.arrived(balls.qpos) | (ages == spec.max_episode_steps)
        actions = controller.act(balls.observations)
        actions += ACTION_NOISE * rng.standard_normal(actions.shape)
        actions = np.clip(actions, -1, 1).astype(np.float32)
        before = balls.qpos.copy(), balls.qvel.copy(), controller.goals.copy()
        balls.step(actions, running)
        times.append((*before, actions, at_goal(balls.qpos, maze), ends))
        advance(int((lengths < share).sum()))
        lengths += running
        ages = np.where(ends, 0, ages + 1)
        running &= ~ends | (lengths < share)
        for i in np.flatnonzero(ends & running).tolist():
            controller.send(i, balls.qpos[i], _draw_cell(maze, rng))
    by_time = [np.stack(arrays) for arrays in zip(*times, strict=True)]  # [T, N, ...]
    return [
        [
            episode
            for i, length in enumerate(lengths)
            for episode in _cut([array[:length, i] for array in by_time])
        ]
    ]


def _draw_cell(maze: Maze, rng: np.random.Generator) -> Cell:
    return maze.cells[rng.integers(len(maze.cells))]


def _cut(rollout: list[np.ndarray]) -> list[Episode]:
    """Return the trajectories of one rollout, whose last column says where they end."""
    cuts = np.flatnonzero(rollout[-1])[:-1] + 1
    parts = zip(*(np.split(column, cuts) for column in rollout), strict=True)
    return [
        Episode(
            np.concatenate([qpos, qvel], axis=1).astype(np.float32),
            actions,
            rewards.astype(np.float32),
            terminals=np.zeros(len(ends), bool),
            timeouts=ends,
            infos={"qpos": qpos, "qvel": qvel, "goal": goals},
        )
        for qpos, qvel, goals, actions, rewards, ends in parts
    ]
