"""D4RL's mazes from above, with the goal and the way so far."""

import math

import mujoco
import numpy as np

from dt_jax.data.registry import DatasetSpec
from dt_jax.envs import antmaze, maze2d, mazes
from dt_jax.envs.antmaze import AntMaze
from dt_jax.envs.base import HostEnv
from dt_jax.video.offscreen import Picture
from dt_jax.video.view import Size, View

PATH = (0.85, 0.1, 0.45, 1.0)  # red, green, blue, alpha
_GOAL, _BALL = (0.1, 0.7, 0.25, 0.6), (0.1, 0.3, 0.8, 1.0)
_WALL, _FLOOR = (0.45, 0.5, 0.56, 1.0), (0.95, 0.95, 0.93, 1.0)
_ANGLE = 15.0  # the camera's field of view in degrees; far off, walls hide little
_RADIUS = 0.5  # of the goal, metres
_BALL_AT = 1.2  # metres from the origin of its model, where its x and y are 0


class MazeView(View):
    """One episode in a maze, and the whole of it from above.

    The maze's columns go to the right. Its rows go down in maze2d, and up in antmaze,
    whose y grows with them.
    """

    has_goal = True

    def __init__(self, env: HostEnv, spec: DatasetSpec, size: Size):
        """Point the camera.

        Args:
          env: of one episode.
          spec: which maze.
          size: width and height of the pictures in pixels.
        """
        self.env = env
        self._is_ant = spec.family == "antmaze"
        if self._is_ant:
            maze, cell, self.step_seconds = mazes.antmaze(spec.maze), antmaze.CELL, 0.1
            ends = antmaze.center(maze, (0, 0)), antmaze.center(maze, maze.free.shape)
            middle = np.mean(ends, axis=0) - cell / 2
            model = antmaze.model_spec(maze)
            self._origin, self._goal = 0.0, np.zeros(2)
        else:
            maze, cell, self.step_seconds = mazes.maze2d(spec.maze), 1.0, 0.01
            middle = (np.array(maze.free.shape) + 1) / 2
            model = maze2d.model_spec(maze)
            self._origin, self._goal = _BALL_AT, np.array(maze.goal) + _BALL_AT
        self._width = cell / 12  # of the path
        self._picture = Picture(_coloured(model), *size)
        rows, columns = np.array(maze.free.shape) * cell
        seen = max(rows, columns * size[1] / size[0])  # from top to bottom, in metres
        self._picture.model.vis.global_.fovy = _ANGLE
        camera = self._picture.camera
        camera.lookat[:2] = middle
        camera.distance = 1.06 * seen / 2 / math.tan(math.radians(_ANGLE / 2))
        camera.elevation, camera.azimuth = -90, 90 if self._is_ant else 180
        self._path: list[np.ndarray] = []

    def begin(self, observation: np.ndarray) -> None:
        """Start the path anew, and see where the goal is."""
        self._path.clear()
        if isinstance(self.env, AntMaze):
            self._goal = self.env.goals[0]
        self.follow(observation)

    def follow(self, observation: np.ndarray) -> None:
        """Let the path go on to where the body is."""
        here = observation[:2] + self._origin
        # Fewer pieces than steps: they end where they can be told apart.
        if not self._path or np.linalg.norm(here - self._path[-1]) > self._width:
            self._path.append(here)

    def frame(self, observation: np.ndarray) -> np.ndarray:
        """Return what is seen now, [height, width, 3] uint8."""
        data = self._picture.data
        data.qpos[:] = observation[: len(data.qpos)]
        here = observation[:2] + self._origin
        return self._picture.draw(lambda scene: self._add(scene, here))

    def close(self) -> None:
        """Give back the buffers."""
        self._picture.close()

    def _add(self, scene: mujoco.MjvScene, here: np.ndarray) -> None:
        """Put the goal and the path up to `here` on the floor."""
        disc = mujoco.mjtGeom.mjGEOM_CYLINDER
        _shape(scene, disc, [_RADIUS, 0, 0.01], [*self._goal, 0.01], _GOAL)
        for start, end in zip(self._path, [*self._path[1:], here], strict=True):
            piece = _shape(scene, mujoco.mjtGeom.mjGEOM_CAPSULE, [0] * 3, [0] * 3, PATH)
            if piece is None:
                return
            height = self._width / 2  # on the floor
            mujoco.mjv_connector(
                piece,
                mujoco.mjtGeom.mjGEOM_CAPSULE,
                self._width / 2,
                np.array([*start, height]),
                np.array([*end, height]),
            )


def _coloured(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """Return the model with plain walls, and a plain floor everywhere."""
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


def _shape(
    scene: mujoco.MjvScene,
    kind: mujoco.mjtGeom,
    size: list[float],
    position: list[float],
    colour: tuple[float, ...],
) -> mujoco.MjvGeom | None:
    """Add a shape to the scene, unless that is full, and return it."""
    if scene.ngeom == scene.maxgeom:
        return None
    shape = scene.geoms[scene.ngeom]
    mujoco.mjv_initGeom(
        shape,
        kind,
        np.array(size, float),
        np.array(position, float),
        np.eye(3).flatten(),
        np.array(colour, np.float32),
    )
    shape.emission, shape.specular = 0.6, 0
    scene.ngeom += 1
    return shape
