"""Pictures of one episode of any environment, step by step."""

import ctypes
from functools import cache
from pathlib import Path

import envpool
import mujoco
import numpy as np

from dt_jax import envs
from dt_jax.data.registry import DatasetSpec
from dt_jax.envs.base import HostEnv
from dt_jax.envs.envpool_env import EnvPoolEnv
from dt_jax.envs.gymnasium_env import GymnasiumEnv
from dt_jax.envs.minari_env import MinariEnv
from dt_jax.envs.mujoco_bodies import gymnasium_xml
from dt_jax.utils.errors import UserError
from dt_jax.video import offscreen
from dt_jax.video.adroit_pose import Adroit
from dt_jax.video.maze_view import MazeView
from dt_jax.video.offscreen import Picture
from dt_jax.video.view import Size, View

_STEPS_A_SECOND = 30  # where the environment doesn't say


def view(spec: DatasetSpec, seed: int, size: Size) -> View:
    """Return an environment for one episode from `seed`, with pictures of `size`.

    Raises:
      UserError: it cannot be built or drawn.
    """
    if spec.family == "gym":
        raise UserError(
            f"{spec.name} of your own gym can't be drawn; --env_name with one of "
            "D4RL's datasets plays and draws it here"
        )
    if spec.family in ("gymnasium", "minari"):
        return _GymnasiumView(spec, seed)
    if spec.family == "envpool":
        return _EnvPoolView(spec, seed, size)
    env = envs.make(spec, [seed])
    if spec.family in _BODIES:
        return _BodyView(env, spec.family, size)
    if spec.family in _HANDS:
        return _HandView(env, spec.family, size)
    return MazeView(env, spec, size)


# Gymnasium's model, the seconds of a step, the height the camera looks at and its
# distance in metres.
_BODIES = {
    "halfcheetah": ("half_cheetah.xml", 0.05, 0.5, 3.0),
    "hopper": ("hopper.xml", 0.008, 0.8, 3.0),
    "walker2d": ("walker2d.xml", 0.008, 0.8, 3.0),
}


class _BodyView(View):
    """A walking body from the side; the camera goes along."""

    def __init__(self, env: HostEnv, family: str, size: Size):
        xml, self.step_seconds, height, distance = _BODIES[family]
        with gymnasium_xml(xml) as path:
            model = mujoco.MjModel.from_xml_path(str(path))
        self._period = _floor(model)
        model.vis.map.shadowclip = 0.3  # or shadows have edges far off
        self.env, self._picture = env, Picture(model, *size)
        camera = self._picture.camera
        camera.lookat[:] = 0, 0, height
        camera.distance, camera.azimuth, camera.elevation = distance, 90, -10

    def frame(self, observation: np.ndarray) -> np.ndarray:
        """Return what is seen now: x is not in the observation, all else is."""
        assert isinstance(self.env, EnvPoolEnv)
        # The floor has an end, but its pattern repeats itself.
        x = self.env.info["x_position"][0] % self._period
        qpos = self._picture.data.qpos
        qpos[0], qpos[1:] = x, observation[: len(qpos) - 1]
        self._picture.camera.lookat[0] = self._picture.model.light_pos[:, 0] = x
        return self._picture.draw()

    def close(self) -> None:
        """Give back the buffers."""
        self._picture.close()


def _floor(model: mujoco.MjModel) -> float:
    """Have the floor's black and white in two greys; return their period in metres."""
    floor = model.geom("floor")
    material = floor.matid.item()
    pixels = model.tex(model.mat_texid[material].max()).data
    pixels[:] = 110 + 0.4 * pixels
    return 2 * floor.size[0] / model.mat_texrepeat[material, 0]


# Where the camera looks, its distance, azimuth and elevation: metres and degrees.
_HANDS = {
    "pen": ((0.08, -0.25, 0.22), 0.8, 90, -50),
    "door": ((0.1, -0.05, 0.3), 1.5, 60, -30),
    "hammer": ((0.0, -0.2, 0.15), 1.0, 30, -35),
    "relocate": ((0.0, -0.05, 0.2), 1.3, 150, -25),
}
_HAND_SECONDS = 0.01


class _HandView(View):
    """The Adroit hand and its objects from a fixed place."""

    def __init__(self, env: HostEnv, task: str, size: Size):
        self.env, self.step_seconds = env, _HAND_SECONDS
        self._adroit = Adroit(task)
        self._picture = Picture(self._adroit.model, *size)
        at, distance, azimuth, elevation = _HANDS[task]
        camera = self._picture.camera
        camera.lookat[:], camera.distance = at, distance
        camera.azimuth, camera.elevation = azimuth, elevation

    def begin(self, observation: np.ndarray) -> None:
        """Put what is drawn anew for each episode in its place."""
        self._adroit.pose(self._picture.data, observation, first=True)

    def frame(self, observation: np.ndarray) -> np.ndarray:
        """Return what is seen now."""
        self._adroit.pose(self._picture.data, observation)
        return self._picture.draw()

    def close(self) -> None:
        """Give back the buffers."""
        self._picture.close()


class _GymnasiumView(View):
    """An environment of Gymnasium's, which draws itself."""

    def __init__(self, spec: DatasetSpec, seed: int):
        kind = MinariEnv if spec.family == "minari" else GymnasiumEnv
        plain = kind(spec.name, [seed], spec.max_episode_steps).envs[0]
        metadata = plain.metadata
        plain.close()
        if "rgb_array" not in metadata.get("render_modes", ()):
            raise UserError(
                f"{spec.name} can't draw itself: rgb_array is not among the "
                "render_modes in its metadata"
            )
        self.step_seconds = 1 / (metadata.get("render_fps") or _STEPS_A_SECOND)
        if hasattr(plain.unwrapped, "mujoco_renderer"):
            offscreen.backend()  # Gymnasium's viewer asks for the same one
        self.env: HostEnv = kind(
            spec.name, [seed], spec.max_episode_steps, render_mode="rgb_array"
        )
        self._draws, self._name = self.env.envs[0], spec.name

    def frame(self, observation: np.ndarray) -> np.ndarray:
        """Return what is seen now, in the environment's own size."""
        try:
            return np.asarray(self._draws.render(), np.uint8)
        except Exception as error:  # whatever a missing package leads to
            why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(f"{self._name} can't draw itself: {why}") from error

    def close(self) -> None:
        """Close the environment."""
        self._draws.close()


# Where nothing is there to draw with, EnvPool's MuJoCo ends the process.
_POOL_PROBE = """
import ctypes, envpool, mujoco
for path in {libraries!r}:
    ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
pool = envpool.make_gymnasium({name!r}, num_envs=1, seed=0, render_mode="rgb_array")
pool.reset()
pool.render()
"""


@cache
def _prepare_pool(name: str) -> None:
    """Have EnvPool draw an environment, or raise a UserError where it can't."""
    # Its MuJoCo looks for the EGL that its wheel brings among what all can see.
    wheel = Path(envpool.__file__).parent.parent / "envpool.libs"
    libraries = [str(path) for path in wheel.glob("libEGL*")]
    if not offscreen.runs(_POOL_PROBE.format(libraries=libraries, name=name)):
        raise UserError(
            f"EnvPool can't draw {name} here; of MuJoCo's bodies it can where there is "
            f"EGL (Debian: apt-get install {offscreen.LIBRARIES['egl']}) and MUJOCO_GL "
            "is not set"
        )
    for path in libraries:
        ctypes.CDLL(path, ctypes.RTLD_GLOBAL)


class _EnvPoolView(View):
    """An environment of EnvPool's other than D4RL's, which draws itself."""

    def __init__(self, spec: DatasetSpec, seed: int, size: Size):
        _prepare_pool(spec.name)
        self.step_seconds = 1 / _STEPS_A_SECOND
        width, height = size
        self.env: HostEnv = EnvPoolEnv(
            spec.name,
            [seed],
            spec.max_episode_steps,
            render_mode="rgb_array",
            render_width=width,
            render_height=height,
        )

    def frame(self, observation: np.ndarray) -> np.ndarray:
        """Return what is seen now."""
        assert isinstance(self.env, EnvPoolEnv)
        return np.asarray(self.env.pool.render())[0]

    def close(self) -> None:
        """Nothing is to be given back."""
