"""Collection of antmaze-umaze-demo and the other antmaze demos, by D4RL's protocol.

| dataset | starts             | goals                      |
|---------|--------------------|----------------------------|
| umaze   | the start cell     | the goal cell              |
| play    | any cell but goals | cells that D4RL picked     |
| diverse | any cell           | any cell                   |

The ant follows the centres of the cells on a shortest path. It is never stopped: an
episode has one row more than evaluation's limit, and the ant stays near its goal after
arriving. Afterwards, rewards and terminals of all rows are set for evaluation's goal,
whatever goal the ant walked to: 1 where the step ends within 0.5 m of it.
(scripts/generation/generate_ant_maze_datasets.py and relabel_antmaze_rewards.py in
D4RL; the table follows its generator and the names of its files.)

Evaluation draws a new goal for each episode, so the data needs one point to represent
them. D4RL used one draw; this uses the mean of the draws, 0.75 m from the cell's centre
in x and in y. The bundled controller replaces D4RL's trained network.
"""

from collections.abc import Callable

import numpy as np

from dt_jax import envs
from dt_jax.data.registry import EnvSpec
from dt_jax.datasets.demo.ant_controller import AntController
from dt_jax.envs import mazes
from dt_jax.envs.antmaze import GOAL_MEAN, ants, at_goal, center, draw_goal, place
from dt_jax.envs.mazes import Cell, Maze
from dt_jax.envs.mujoco_batch import MujocoBatch
from dt_jax.rollout.episodes import Episode

ACTION_NOISE = 0.2  # standard deviation, D4RL's
_WAYPOINT_RADIUS = 1.0  # metres; within it the ant walks to the next waypoint


def collect(
    spec: EnvSpec, steps: int, seed: int, advance: Callable[[int], None]
) -> list[list[Episode]]:
    """Return whole episodes with at least `steps` transitions, at one skill level."""
    maze = mazes.antmaze(spec.maze)
    length = spec.max_episode_steps + 1
    seeds = envs.episode_seeds((seed, 1), -(-steps // length))
    bodies = ants(maze, len(seeds))
    starts, goals = _starts_and_goals(maze, spec.name)
    paths = [
        _place_at_start(maze, bodies, i, starts, goals, np.random.default_rng(own_seed))
        for i, own_seed in enumerate(seeds)
    ]
    followers, controller = Followers(paths), AntController()
    noise = np.random.default_rng((seed, 2))
    rows = []
    for _ in range(length):
        states = bodies.qpos.copy(), bodies.qvel.copy()
        directions = followers.directions(bodies.qpos[:, :2])
        actions = controller.act(bodies.observations, directions)
        actions += ACTION_NOISE * noise.standard_normal(actions.shape)
        actions = np.clip(actions, -1, 1).astype(np.float32)
        bodies.step(actions)
        rows.append((*states, actions, bodies.qpos[:, :2].copy()))
        advance(len(seeds))
    # Each [T, N, ...]
    qpos, qvel, acted, arrived_at = map(np.stack, zip(*rows, strict=True))
    goal = evaluation_goal(maze)
    return [
        [
            _episode(qpos[:, i], qvel[:, i], acted[:, i], arrived_at[:, i], path, goal)
            for i, path in enumerate(paths)
        ]
    ]


def evaluation_goal(maze: Maze) -> np.ndarray:
    """Return the mean of evaluation's goals, [2] in metres."""
    return center(maze, maze.goal) + GOAL_MEAN


def _starts_and_goals(maze: Maze, name: str) -> tuple[list[Cell], list[Cell]]:
    """Return the cells in which episodes of a dataset may start and end."""
    assert maze.start is not None
    if "diverse" in name:
        return maze.cells, maze.cells
    if "play" in name:
        return [c for c in maze.cells if c not in maze.play_goals], maze.play_goals
    return [maze.start], [maze.goal]


def _place_at_start(
    maze: Maze,
    bodies: MujocoBatch,
    i: int,
    starts: list[Cell],
    goals: list[Cell],
    rng: np.random.Generator,
) -> np.ndarray:
    """Place ant i at a start and return its waypoints, [W, 2]."""
    start, goal = starts[rng.integers(len(starts))], goals[rng.integers(len(goals))]
    at = center(maze, start)
    if len(starts) > 1:  # D4RL's umaze starts at the exact centre
        at += rng.uniform(0, 1, 2)
    place(bodies, i, rng, at)
    waypoints = [center(maze, cell) for cell in maze.path(start, goal)[1:-1]]
    return np.array([*waypoints, draw_goal(maze, goal, rng)])


class Followers:
    """The waypoints of N ants, and which of them each ant walks to.

    Args:
      paths: the waypoints of each ant, [W, 2] in metres.
    """

    def __init__(self, paths: list[np.ndarray]):
        self._last = np.array([len(path) for path in paths]) - 1  # [N]
        self._next = np.zeros(len(paths), int)  # [N]
        self._points = np.zeros((len(paths), self._last.max() + 1, 2))
        for points, path in zip(self._points, paths, strict=True):
            points[: len(path)] = path

    def directions(self, positions: np.ndarray) -> np.ndarray:
        """Return the walking directions [N], radians, at `positions` [N, 2], metres."""
        reached = np.linalg.norm(self._to_next(positions), axis=1) <= _WAYPOINT_RADIUS
        self._next = np.minimum(self._next + reached, self._last)
        x, y = self._to_next(positions).T
        return np.arctan2(y, x)

    def _to_next(self, positions: np.ndarray) -> np.ndarray:
        return self._points[np.arange(len(positions)), self._next] - positions


def _episode(
    qpos: np.ndarray,
    qvel: np.ndarray,
    actions: np.ndarray,
    next_positions: np.ndarray,
    path: np.ndarray,
    goal: np.ndarray,
) -> Episode:
    """Return T steps of one ant on its `path` [W, 2], rewarded for `goal` [2]."""
    arrived = at_goal(next_positions, goal)
    observations = np.concatenate([qpos, qvel], axis=1)
    return Episode(
        observations.astype(np.float32),
        actions,
        rewards=arrived.astype(np.float32),
        terminals=arrived,
        timeouts=np.arange(len(qpos)) == len(qpos) - 1,
        infos={"qpos": qpos, "qvel": qvel, "goal": np.tile(path[-1], (len(qpos), 1))},
    )
