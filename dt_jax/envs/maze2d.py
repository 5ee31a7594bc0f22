"""D4RL's maze2d on plain MuJoCo: a ball is pushed to the goal of a maze.

The physics are those of d4rl/pointmaze/maze_model.py. Gymnasium-Robotics' PointMaze has
the same physics in another frame, with a different reset, goal and reward.
"""

from collections.abc import Sequence

import numpy as np

from dt_jax.envs import mazes
from dt_jax.envs.base import HostEnv
from dt_jax.envs.mazes import Cell, Maze
from dt_jax.envs.mujoco_batch import MujocoBatch, mujoco

_TOP_SPEED = 5.0  # metres per second along an axis, at the start of a step
_GOAL_RADIUS = 0.5  # metres


class Points(MujocoBatch):
    """Balls whose velocity is clipped before each step, as in D4RL's environment."""

    def step(self, controls: np.ndarray, moving: np.ndarray | None = None) -> None:
        """Advance the balls that are `moving` [N], by default all."""
        which = slice(None) if moving is None else moving
        self.qvel[which] = np.clip(self.qvel[which], -_TOP_SPEED, _TOP_SPEED)
        super().step(controls, moving)


def points(maze: Maze, num: int, num_threads: int | None = None) -> Points:
    """Return N balls, each in its own copy of a maze; controls are actions [N, 2].

    Observations are [N, 4]: x and y (metres), and their velocities. x grows with the
    maze's rows and y with its columns, one metre per cell; the centre of the cell in
    row r and column c is (r - 0.2, c - 0.2). A step takes 0.01 s.
    """
    return Points(model_spec(maze).compile(), num, substeps=1, num_threads=num_threads)


def place(batch: Points, i: int, rng: np.random.Generator, maze: Maze) -> None:
    """Reset ball i as D4RL does, in a random free cell."""
    batch.qpos[i] = rng.choice(maze.cells) + rng.uniform(-0.1, 0.1, 2)
    batch.qvel[i] = 0.1 * rng.standard_normal(2)


def cell_of(position: np.ndarray) -> Cell:
    """Return the cell that contains a point [2]."""
    row, column = np.rint(position + 0.2).astype(int).tolist()
    return row, column


def at_goal(positions: np.ndarray, maze: Maze) -> np.ndarray:
    """Return whether points [..., 2] lie within 0.5 m of the maze's goal."""
    return np.linalg.norm(positions - maze.goal, axis=-1) <= _GOAL_RADIUS


class Maze2D(HostEnv):
    """N episodes of D4RL's evaluation: reward 1 in each step that ends at the goal.

    Only the time limit ends an episode. The maze has one goal, the same in every
    episode, which is not in the observation.

    Args:
      name: "umaze", "medium" or "large".
      seeds: one per episode.
      max_episode_steps: D4RL's limit, 300 in umaze, 600 in medium and 800 in large.
      num_threads: by default the usable cores.
    """

    def __init__(
        self,
        name: str,
        seeds: Sequence[int],
        max_episode_steps: int,
        num_threads: int | None = None,
    ):
        self._maze = mazes.maze2d(name)
        self._points = points(self._maze, len(seeds), num_threads)
        self.seeds = list(seeds)
        super().__init__(f"maze2d-{name}", (len(seeds), 4, 2), max_episode_steps)

    def _start(self) -> np.ndarray:
        for i, seed in enumerate(self.seeds):
            place(self._points, i, np.random.default_rng(seed), self._maze)
        return self._points.observations

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        self._points.step(actions, self._running)
        rewards = at_goal(self._points.qpos, self._maze)
        return self._points.observations, rewards, np.zeros(self.num_envs, bool)


def model_spec(maze: Maze) -> mujoco.MjSpec:
    """Return D4RL's ball and walls; its ground is left out, as it has no effect."""
    spec = mujoco.MjSpec()
    spec.option.timestep = 0.01
    spec.option.gravity[:] = 0
    spec.option.iterations = 20
    ball = spec.worldbody.add_body(pos=[1.2, 1.2, 0])
    sphere = ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.1, 0, 0])
    sphere.density = 1000
    # D4RL's walls have this margin too. Its MuJoCo used the larger of two margins,
    # today's uses their sum; here walls have none, so that contacts begin as in D4RL.
    sphere.margin = 0.002
    for name, axis in (("x", [1, 0, 0]), ("y", [0, 1, 0])):
        joint = ball.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
        joint.damping[0] = 1
        actuator = spec.add_actuator(target=name)
        actuator.trntype = mujoco.mjtTrn.mjTRN_JOINT
        actuator.gear[0] = 100  # newtons at an action of 1
    for row, column in maze.walls:
        wall = spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX)
        wall.pos = [row + 1, column + 1, 0]
        wall.size = [0.5, 0.5, 0.2]
    for geom in spec.geoms:
        geom.condim = 1  # no friction
    return spec
