"""D4RL's HalfCheetah, Hopper and Walker2d from the side."""

import mujoco
import numpy as np

from dt_jax import envs
from dt_jax.data.registry import EnvSpec
from dt_jax.envs.envpool_env import EnvPoolEnv
from dt_jax.envs.mujoco_batch import gymnasium_xml
from dt_jax.video.offscreen import Renderer
from dt_jax.video.view import ModelView, Size

# By family: Gymnasium's model, the seconds of a step, the height that the camera points
# at and its distance (metres).
_BODIES = {
    "halfcheetah": ("half_cheetah.xml", 0.05, 0.5, 3.0),
    "hopper": ("hopper.xml", 0.008, 0.8, 3.0),
    "walker2d": ("walker2d.xml", 0.008, 0.8, 3.0),
}


class LocomotionView(ModelView):
    """A walking body; the camera moves with it."""

    def __init__(self, spec: EnvSpec, seed: int, size: Size):
        xml, self.step_seconds, height, distance = _BODIES[spec.family]
        with gymnasium_xml(xml) as path:
            model = mujoco.MjModel.from_xml_path(str(path))
        self._period = _soften_floor(model)
        model.vis.map.shadowclip = 0.3  # otherwise distant shadows have hard edges
        self.env, self._renderer = envs.make(spec, [seed]), Renderer(model, *size)
        self._renderer.point_camera((0, 0, height), distance, 90, -10)

    def render(self, observation: np.ndarray) -> np.ndarray:
        """Return a frame; only x is missing from the observation."""
        assert isinstance(self.env, EnvPoolEnv)
        # Wrapped around: the floor is finite, but its pattern is periodic.
        x = self.env.info["x_position"][0] % self._period
        qpos = self._renderer.data.qpos
        qpos[0], qpos[1:] = x, observation[: len(qpos) - 1]
        self._renderer.camera.lookat[0] = self._renderer.model.light_pos[:, 0] = x
        return self._renderer.render()


def _soften_floor(model: mujoco.MjModel) -> float:
    """Turn the floor's black and white to greys; return its period in metres."""
    floor = model.geom("floor")
    material = floor.matid.item()
    pixels = model.tex(model.mat_texid[material].max()).data
    pixels[:] = 110 + 0.4 * pixels
    return 2 * floor.size[0] / model.mat_texrepeat[material, 0]
