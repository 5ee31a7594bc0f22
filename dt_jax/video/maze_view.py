"""D4RL's mazes from above, with the goal and the path of the body."""

import math
from abc import abstractmethod

import mujoco
import numpy as np

from dt_jax import envs
from dt_jax.data.registry import EnvSpec
from dt_jax.envs import antmaze, maze2d, mazes
from dt_jax.envs.antmaze import AntMaze
from dt_jax.envs.mazes import Maze
from dt_jax.video.offscreen import Renderer
from dt_jax.video.view import ModelView, Size

_PATH = (0.85, 0.1, 0.45, 1.0)  # red, green, blue, alpha
_GOAL, _BALL = (0.1, 0.7, 0.25, 0.6), (0.1, 0.3, 0.8, 1.0)
_WALL, _FLOOR = (0.45, 0.5, 0.56, 1.0), (0.95, 0.95, 0.93, 1.0)
_FIELD_OF_VIEW = 15.0  # degrees; narrow, so that walls hide little
_RADIUS = 0.5  # of the goal, metres


class _MazeView(ModelView):
    """One episode in a maze, all of it from above; columns run to the right."""

    has_goal = True
    _cell: float  # the width of a cell, metres
    _azimuth: float  # of the camera, degrees
    _origin = 0.0  # x and y in the model where they are observed as 0

    def __init__(self, spec: EnvSpec, seed: int, size: Size):
        self.env = envs.make(spec, [seed])
        maze, model, centre = self._build(spec.maze)
        self._renderer = Renderer(_recoloured(model), *size)
        self._renderer.model.vis.global_.fovy = _FIELD_OF_VIEW
        rows, columns = np.array(maze.free.shape) * self._cell
        height = max(rows, columns * size[1] / size[0])  # visible, in metres
        distance = 1.06 * height / 2 / math.tan(math.radians(_FIELD_OF_VIEW / 2))
        self._renderer.point_camera((*centre, 0), distance, self._azimuth, -90)
        self._width = self._cell / 12  # of the path
        self._path: list[np.ndarray] = []
        self._goal = np.array(maze.goal) + self._origin  # AntMaze: per episode

    @staticmethod
    @abstractmethod
    def _build(name: str) -> tuple[Maze, mujoco.MjSpec, np.ndarray]:
        """Return a maze, its model, and x and y of its centre in the model."""

    def start_episode(self, observation: np.ndarray) -> None:
        """Start a new path."""
        self._path.clear()
        self.track(observation)

    def track(self, observation: np.ndarray) -> None:
        """Extend the path to the body's position."""
        position = observation[:2] + self._origin
        # Fewer segments than steps: each is long enough to be visible.
        if not self._path or np.linalg.norm(position - self._path[-1]) > self._width:
            self._path.append(position)

    def render(self, observation: np.ndarray) -> np.ndarray:
        """Return a frame with the goal and the path."""
        data = self._renderer.data
        data.qpos[:] = observation[: len(data.qpos)]
        position = observation[:2] + self._origin
        return self._renderer.render(lambda scene: self._add_to(scene, position))

    def _add_to(self, scene: mujoco.MjvScene, position: np.ndarray) -> None:
        """Add the goal and the path up to `position` to the scene's floor."""
        disc, capsule = mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_CAPSULE
        _add_geom(scene, disc, [_RADIUS, 0, 0.01], [*self._goal, 0.01], _GOAL)
        for start, end in zip(self._path, [*self._path[1:], position], strict=True):
            segment = _add_geom(scene, capsule, [0] * 3, [0] * 3, _PATH)
            radius = self._width / 2
            from_, to = np.array([*start, radius]), np.array([*end, radius])
            mujoco.mjv_connector(segment, capsule, radius, from_, to)


class Maze2DView(_MazeView):
    """A ball in a maze; the maze's rows run down."""

    step_seconds = 0.01
    _cell, _azimuth, _origin = 1.0, 180.0, 1.2

    @staticmethod
    def _build(name: str) -> tuple[Maze, mujoco.MjSpec, np.ndarray]:
        maze = mazes.maze2d(name)
        return maze, maze2d.model_spec(maze), (np.array(maze.free.shape) + 1) / 2


class AntMazeView(_MazeView):
    """An ant in a maze; the maze's rows run up, as y does."""

    step_seconds = 0.1
    _cell, _azimuth = antmaze.CELL, 90.0

    @staticmethod
    def _build(name: str) -> tuple[Maze, mujoco.MjSpec, np.ndarray]:
        maze = mazes.antmaze(name)
        last = np.array(maze.free.shape) - 1
        corners = antmaze.center(maze, (0, 0)), antmaze.center(maze, tuple(last))
        return maze, antmaze.model_spec(maze), np.mean(corners, axis=0)

    def start_episode(self, observation: np.ndarray) -> None:
        """Start a new path; read the episode's goal."""
        assert isinstance(self.env, AntMaze)
        self._goal = self.env.goals[0]
        super().start_episode(observation)


def _recoloured(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """Return the model with plain walls, and one plain floor."""
    headlight = spec.visual.headlight
    headlight.ambient, headlight.diffuse = [0.5] * 3, [0.4] * 3
    headlight.specular = [0] * 3
    for light in spec.lights:
        spec.delete(light)
    plane, box = mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_BOX
    for geom in spec.geoms:
        if geom.type == plane:
            spec.delete(geom)
        elif geom.type == box:
            geom.rgba = _WALL
        elif geom.type == mujoco.mjtGeom.mjGEOM_SPHERE and not geom.name:
            geom.rgba = _BALL
    spec.worldbody.add_geom(type=plane, size=[0, 0, 1], rgba=_FLOOR)
    return spec.compile()


def _add_geom(
    scene: mujoco.MjvScene,
    kind: mujoco.mjtGeom,
    size: list[float],
    position: list[float],
    colour: tuple[float, ...],
) -> mujoco.MjvGeom:
    """Add a geom to the scene and return it."""
    geom = scene.geoms[scene.ngeom]
    mujoco.mjv_initGeom(
        geom,
        kind,
        np.array(size, float),
        np.array(position, float),
        np.eye(3).flatten(),
        np.array(colour, np.float32),
    )
    geom.emission, geom.specular = 0.6, 0
    scene.ngeom += 1
    return geom
