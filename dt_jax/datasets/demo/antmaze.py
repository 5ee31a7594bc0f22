"""antmaze-umaze-demo and its like, by the protocol of D4RL's antmaze files.

| dataset | starts             | goals                      |
|---------|--------------------|----------------------------|
| umaze   | the start cell     | the goal cell              |
| play    | any cell but goals | cells that D4RL has picked |
| diverse | any cell           | any cell                   |

The ant follows the centres of the cells on a shortest way. It is never stopped: an
episode has one row more than evaluation's limit, and the ant stays about its goal when
it has arrived. Afterwards all rows are rewarded and ended for evaluation's goal,
whatever goal they were walked for: 1 where the step's end is within 0.5 m of it.
(scripts/generation/generate_ant_maze_datasets.py and relabel_antmaze_rewards.py in
D4RL; the table is its generator's and that of its files' names.)

Evaluation draws its goal anew for each episode, so one point has to stand for all of
them. D4RL took a draw; here it is the mean of the draws, 0.75 m from the cell's centre
in x and in y. The bundled controller walks, where D4RL had a trained network.
"""

from collections.abc import Callable

import numpy as np

from dt_jax import envs
from dt_jax.data.registry import EnvSpec
from dt_jax.datasets.demo.ant_controller import AntController
from dt_jax.datasets.demo.episodes import Episode
from dt_jax.envs import mazes
from dt_jax.envs.antmaze import GOAL_MEAN, ants, at_goal, center, draw_goal, place
from dt_jax.envs.mazes import Cell, Maze
from dt_jax.envs.mujoco_batch import MujocoBatch

ACTION_NOISE = 0.2  # standard deviation, D4RL's
_WAYPOINT_RADIUS = 1.0  # metres, within which the next one is walked to


def collect(
    spec: EnvSpec, steps: int, seed: int, advance: Callable[[int], None]
) -> list[list[Episode]]:
    """Return whole episodes with `steps` transitions or a few more, at one level."""
    maze = mazes.antmaze(spec.maze)
    length = spec.max_episode_steps + 1
    seeds = envs.episode_seeds((seed, 1), -(-steps // length))
    bodies = ants(maze, len(seeds))
    starts, goals = _starts_and_goals(maze, spec.name)
    ways = [
        _set_out(maze, bodies, i, starts, goals, np.random.default_rng(own_seed))
        for i, own_seed in enumerate(seeds)
    ]
    followers, controller = Followers(ways), AntController()
    noise = np.random.default_rng((seed, 2))
    times = []
    for _ in range(length):
        states = bodies.qpos.copy(), bodies.qvel.copy()
        directions = followers.directions(bodies.qpos[:, :2])
        actions = controller.act(bodies.observations, directions)
        actions += ACTION_NOISE * noise.standard_normal(actions.shape)
        actions = np.clip(actions, -1, 1).astype(np.float32)
        bodies.step(actions)
        times.append((*states, actions, bodies.qpos[:, :2].copy()))
        advance(len(seeds))
    # Each [T, N, ...]
    qpos, qvel, acted, arrived_at = map(np.stack, zip(*times, strict=True))
    goal = evaluation_goal(maze)
    return [
        [
            _episode(qpos[:, i], qvel[:, i], acted[:, i], arrived_at[:, i], way, goal)
            for i, way in enumerate(ways)
        ]
    ]


def evaluation_goal(maze: Maze) -> np.ndarray:
    """Return the mean of the goals that evaluation draws, [2] in metres."""
    return center(maze, maze.goal) + GOAL_MEAN


def _starts_and_goals(maze: Maze, name: str) -> tuple[list[Cell], list[Cell]]:
    """Return the cells that episodes of a dataset may begin in and lead to."""
    assert maze.start is not None
    if "diverse" in name:
        return maze.cells, maze.cells
    if "play" in name:
        return [c for c in maze.cells if c not in maze.play_goals], maze.play_goals
    return [maze.start], [maze.goal]


def _set_out(
    maze: Maze,
    bodies: MujocoBatch,
    i: int,
    starts: list[Cell],
    goals: list[Cell],
    rng: np.random.Generator,
) -> np.ndarray:
    """Put ant i at a start and return the points it is to walk to, [W, 2]."""
    start, goal = starts[rng.integers(len(starts))], goals[rng.integers(len(goals))]
    at = center(maze, start)
    if len(starts) > 1:  # D4RL's umaze starts in the very centre
        at += rng.uniform(0, 1, 2)
    place(bodies, i, rng, at)
    between = [center(maze, cell) for cell in maze.path(start, goal)[1:-1]]
    return np.array([*between, draw_goal(maze, goal, rng)])


class Followers:
    """Who of N ants walks to which point of its way."""

    def __init__(self, ways: list[np.ndarray]):
        self._last = np.array([len(way) for way in ways]) - 1  # [N]
        self._next = np.zeros(len(ways), int)  # [N]
        self._points = np.zeros((len(ways), self._last.max() + 1, 2))
        for points, way in zip(self._points, ways, strict=True):
            points[: len(way)] = way

    def directions(self, positions: np.ndarray) -> np.ndarray:
        """Return where to walk from `positions` [N, 2], [N] in radians."""
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
    way: np.ndarray,
    goal: np.ndarray,
) -> Episode:
    """Return what one ant did in T steps on its `way`, rewarded for `goal`."""
    arrived = at_goal(next_positions, goal)
    observations = np.concatenate([qpos, qvel], axis=1)
    return Episode(
        observations.astype(np.float32),
        actions,
        rewards=arrived.astype(np.float32),
        terminals=arrived,
        timeouts=np.arange(len(qpos)) == len(qpos) - 1,
        infos={"qpos": qpos, "qvel": qvel, "goal": np.tile(way[-1], (len(qpos), 1))},
    )
