"""D4RL's antmaze on plain MuJoCo: an ant walks to the goal of a maze.

The physics are those of d4rl/locomotion/ant.py and maze_env.py. Gymnasium-Robotics'
AntMaze has the same maps but different physics: five times the torque, half the control
period, and another frame, goal radius and reset.
"""

from collections.abc import Sequence

import numpy as np

from dt_jax.envs import mazes
from dt_jax.envs.base import HostEnv
from dt_jax.envs.mazes import Cell, Maze
from dt_jax.envs.mujoco_batch import MujocoBatch, gymnasium_xml, mujoco

CELL = 4.0  # metres
_SUBSTEPS = 5  # of 0.02 s: a control period of 0.1 s
_TORQUE = 30.0  # newton metres at an action of 1
GOAL_MEAN = 0.75  # metres, the mean offset of draw_goal in x and y
_GOAL_RADIUS = 0.5  # metres


def ants(maze: Maze, num: int, num_threads: int | None = None) -> MujocoBatch:
    """Return N ants, each in its own copy of a maze; controls are actions [N, 8].

    Observations are [N, 29]: x, y and z (metres), the torso's quaternion, 8 joint
    angles (radians), and their velocities. x grows with the maze's columns and y with
    its rows, from the centre of the start cell. Actions drive the joints hip 4,
    ankle 4, hip 1, ankle 1, hip 2, ankle 2, hip 3, ankle 3.
    """
    return MujocoBatch(model_spec(maze).compile(), num, _SUBSTEPS, num_threads)


def place(batch: MujocoBatch, i: int, rng: np.random.Generator, at: np.ndarray) -> None:
    """Reset ant i as D4RL does, within 0.1 of the point `at` [2] in x and y."""
    batch.qpos[i] = batch.rest + rng.uniform(-0.1, 0.1, len(batch.rest))
    batch.qpos[i, :2] += at
    batch.qpos[i, 3:7] /= np.linalg.norm(batch.qpos[i, 3:7])
    batch.qvel[i] = 0.1 * rng.standard_normal(len(batch.qvel[i]))


def center(maze: Maze, cell: Cell) -> np.ndarray:
    """Return x and y [2] of a cell's centre in metres, 0 at the start cell."""
    assert maze.start is not None
    row, column = cell
    return CELL * np.array([column - maze.start[1], row - maze.start[0]], float)


def draw_goal(maze: Maze, cell: Cell, rng: np.random.Generator) -> np.ndarray:
    """Return a random goal [2] in a cell, as D4RL draws it: towards larger x and y."""
    return center(maze, cell) + rng.uniform(0, 1, 2) + rng.uniform(0, 0.5, 2)


def at_goal(positions: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Return whether points [..., 2] lie within 0.5 m of goals [..., 2]."""
    return np.linalg.norm(positions - goals, axis=-1) <= _GOAL_RADIUS


class AntMaze(HostEnv):
    """N episodes of D4RL's evaluation: reward 1 at the goal, which ends it, else 0.

    Each episode has its own random goal, which is not in the observation. A fall does
    not end the episode.

    Args:
      name: "umaze", "medium" or "large"; D4RL evaluates play and diverse alike.
      seeds: one per episode.
      max_episode_steps: D4RL's limit, 700 in umaze and 1000 in the others.
      num_threads: by default the usable cores.

    Attributes:
      goals: [N, 2] in metres, set by a reset.
    """

    def __init__(
        self,
        name: str,
        seeds: Sequence[int],
        max_episode_steps: int,
        num_threads: int | None = None,
    ):
        self._maze = mazes.antmaze(name)
        self._ants = ants(self._maze, len(seeds), num_threads)
        self.seeds = list(seeds)
        self.goals = np.zeros((len(seeds), 2))
        super().__init__(f"antmaze-{name}", (len(seeds), 29, 8), max_episode_steps)

    def _start(self) -> np.ndarray:
        for i, seed in enumerate(self.seeds):
            rng = np.random.default_rng(seed)
            place(self._ants, i, rng, np.zeros(2))
            self.goals[i] = draw_goal(self._maze, self._maze.goal, rng)
        return self._ants.observations

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        self._ants.step(actions, self._running)
        reached = at_goal(self._ants.qpos[:, :2], self.goals)
        return self._ants.observations, reached, reached


def model_spec(maze: Maze) -> mujoco.MjSpec:
    """Return Gymnasium's ant, whose body is D4RL's, with D4RL's physics and walls."""
    with gymnasium_xml("ant.xml") as path:
        spec = mujoco.MjSpec.from_file(str(path))
    spec.option.timestep = 0.02
    for actuator in spec.actuators:
        # D4RL has controls up to ±30 at a gear of 1; here controls are the actions.
        actuator.gear[0] = _TORQUE
    half, height = CELL / 2, CELL / 4
    for cell in maze.walls:
        wall = spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX)
        wall.pos = [*center(maze, cell), height]
        wall.size = [half, half, height]
        wall.contype = wall.conaffinity = 1
    for geom in spec.geoms:
        geom.solimp[:3] = 0.8, 0.8, 0.01
        geom.solref[:] = 0.02, 1
        if geom.parent == spec.worldbody:  # the floor and the walls
            # The ant's geoms have D4RL's 0.01. MuJoCo combines the margins of two geoms
            # by their maximum up to version 3, which D4RL used, and by their sum since.
            geom.margin = 0
    return spec
