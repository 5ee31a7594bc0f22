"""Collection of maze2d-umaze-demo and the other maze2d demos, by D4RL's protocol.

A ball is sent from goal to goal without resets. Reaching the goal, or the time limit,
ends a trajectory; the next one starts in the next state with a new goal, drawn from all
free cells including the ball's own, so a few trajectories have one row. Afterwards all
rows are rewarded for evaluation's goal. A trajectory's return is therefore the time it
spends there: nearly always 0, or as long as leaving or reaching the goal takes.

Differences from D4RL's generate_maze2d_datasets.py and relabel_maze2d_rewards.py:

- D4RL has one rollout; this runs one for each 4,000 steps, in parallel.
- D4RL rewards the state before the action; this rewards the state after it, like the
  environment.
- In D4RL a trajectory's first observation repeats the previous trajectory's last; here
  it is the true one.
- D4RL draws goals around a cell's index, and its controller rounds them; here they are
  the index.
"""

from collections.abc import Callable

import numpy as np

from dt_jax.data.registry import EnvSpec
from dt_jax.envs import mazes
from dt_jax.envs.maze2d import at_goal, cell_of, place, points
from dt_jax.envs.mazes import Cell, Maze
from dt_jax.rollout.episodes import Episode

# Standard deviation. It is an option of D4RL's script, and unknown for D4RL's files;
# Minari's newer ones were made with it.
ACTION_NOISE = 0.5
_ROLLOUT = 4_000  # steps
_GAIN, _DAMPING = 10.0, -1.0  # factors of the distance (m) and the velocity (m/s)
_CLOSE = 0.1  # metres, within which a waypoint or the goal counts as reached


class WaypointController:
    """D4RL's controller for N balls, which follows the cells of a shortest path.

    D4RL finds its path, of the same length, by value iteration. It also requires a ball
    to move less than 0.1 m in the step that reaches a waypoint, which always holds
    because velocities are clipped.

    Args:
      maze: the maze.
      num: N.
      rng: draws the waypoints within their cells.
    """

    def __init__(self, maze: Maze, num: int, rng: np.random.Generator):
        self._maze, self._rng = maze, rng
        self._paths = np.zeros((num, len(maze.cells), 2))  # padded with the goal
        self._next = np.zeros(num, int)

    @property
    def goals(self) -> np.ndarray:
        """The goal of each ball, [N, 2]."""
        return self._paths[:, -1]

    def send(self, i: int, position: np.ndarray, goal: Cell) -> None:
        """Send ball i from a position [2] to a cell."""
        path = self._maze.path(cell_of(position), goal)
        between = np.reshape(path[1:-1], (-1, 2))
        self._paths[i] = goal
        # Between a cell's centre and its index.
        self._paths[i, : len(between)] = between - self._rng.uniform(
            0, 0.2, between.shape
        )
        self._next[i] = 0

    def arrived(self, positions: np.ndarray) -> np.ndarray:
        """Return which balls at `positions` [N, 2] have reached their goals, [N]."""
        return np.linalg.norm(self.goals - positions, axis=1) < _CLOSE

    def act(
        self,
        observations: np.ndarray,
        rewards: np.ndarray | None = None,
        done: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return actions [N, 2] for observations [N, 4]; the rest is ignored."""
        positions, velocities = observations[:, :2], observations[:, 2:]
        ahead = self._paths[np.arange(len(positions)), self._next] - positions
        reached = np.linalg.norm(ahead, axis=1) < _CLOSE
        self._next = np.minimum(self._next + reached, self._paths.shape[1] - 1)
        return np.clip(_GAIN * ahead + _DAMPING * velocities, -1, 1)


def collect(
    spec: EnvSpec, steps: int, seed: int, advance: Callable[[int], None]
) -> list[list[Episode]]:
    """Return whole trajectories with at least `steps` transitions, at one skill level.

    The trajectories of a rollout are consecutive.
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
    ages = np.zeros(rollouts, int)  # steps of the current trajectories
    running = np.ones(rollouts, bool)
    rows = []
    while running.any():
        ends = controller.arrived(balls.qpos) | (ages == spec.max_episode_steps)
        actions = controller.act(balls.observations)
        actions += ACTION_NOISE * rng.standard_normal(actions.shape)
        actions = np.clip(actions, -1, 1).astype(np.float32)
        before = balls.qpos.copy(), balls.qvel.copy(), controller.goals.copy()
        balls.step(actions, running)
        rows.append((*before, actions, at_goal(balls.qpos, maze), ends))
        advance(int((lengths < share).sum()))
        lengths += running
        ages = np.where(ends, 0, ages + 1)
        running &= ~ends | (lengths < share)
        for i in np.flatnonzero(ends & running).tolist():
            controller.send(i, balls.qpos[i], _draw_cell(maze, rng))
    by_time = [np.stack(arrays) for arrays in zip(*rows, strict=True)]  # [T, N, ...]
    return [
        [
            episode
            for i, length in enumerate(lengths)
            for episode in _split([array[:length, i] for array in by_time])
        ]
    ]


def _draw_cell(maze: Maze, rng: np.random.Generator) -> Cell:
    return maze.cells[rng.integers(len(maze.cells))]


def _split(rollout: list[np.ndarray]) -> list[Episode]:
    """Split a rollout into trajectories; its last column marks their last rows."""
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
