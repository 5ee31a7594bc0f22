"""The Adroit hand and its objects, posed from observations.

EnvPool does not return its state, but all that is visible follows from the observation,
by inverting the observation functions of Gymnasium-Robotics' adroit_hand/*.py: all but
the rotation of the pen and the ball about their own axes. The positions of palm and
objects are observed one simulation step (2 ms) before those of the joints.
"""

from pathlib import Path

import envpool
import mujoco
import numpy as np

from dt_jax import envs
from dt_jax.data.registry import EnvSpec
from dt_jax.envs.adroit import envpool_id
from dt_jax.video.offscreen import Renderer
from dt_jax.video.view import ModelView, Size

_ASSETS = "mujoco/robotics/assets"  # in EnvPool's package

# Where the camera points (metres), its distance, azimuth and elevation (degrees).
_CAMERAS = {
    "pen": ((0.08, -0.25, 0.22), 0.8, 90, -50),
    "door": ((0.1, -0.05, 0.3), 1.5, 60, -30),
    "hammer": ((0.0, -0.2, 0.15), 1.0, 30, -35),
    "relocate": ((0.0, -0.05, 0.2), 1.3, 150, -25),
}


class AdroitView(ModelView):
    """The hand and its objects through a fixed camera."""

    step_seconds = 0.01

    def __init__(self, spec: EnvSpec, seed: int, size: Size):
        self.env = envs.make(spec, [seed])
        self._model = AdroitModel(spec.env_id)
        self._renderer = Renderer(self._model.model, *size)
        self._renderer.point_camera(*_CAMERAS[spec.env_id])

    def start_episode(self, observation: np.ndarray) -> None:
        """Place the objects whose position is random per episode."""
        self._model.pose(self._renderer.data, observation, first=True)

    def render(self, observation: np.ndarray) -> np.ndarray:
        """Return a frame of the observed pose."""
        self._model.pose(self._renderer.data, observation)
        return self._renderer.render()


class AdroitModel:
    """EnvPool's MuJoCo model of one task, posed as observed.

    Objects are moved as bodies of the model; their own joints stay at 0.
    """

    def __init__(self, task: str):
        config = envpool.make_spec(envpool_id(task)).config
        path = Path(config.base_path) / _ASSETS / config.xml_file
        self.model = mujoco.MjModel.from_xml_path(str(path))
        self._pose = getattr(self, f"_pose_{task}")

    def pose(
        self, data: mujoco.MjData, observation: np.ndarray, first: bool = False
    ) -> None:
        """Move the hand and the objects to the observed positions [S].

        The first observation of an episode also sets the goal's place.
        """
        observation = np.asarray(observation, np.float64)
        data.qpos[:] = 0
        self._pose(data, observation, first)
        mujoco.mj_kinematics(self.model, data)

    def _pose_pen(self, data: mujoco.MjData, obs: np.ndarray, first: bool) -> None:
        data.qpos[:24] = obs[:24]
        pen = self.model.body("Object")
        pen.pos[:], pen.quat[:] = obs[24:27], _rotation_to(obs[33:36])
        if first:
            self.model.body("target").quat[:] = _rotation_to(obs[36:39])

    def _pose_door(self, data: mujoco.MjData, obs: np.ndarray, first: bool) -> None:
        data.qpos[1:28] = obs[:27]
        data.qpos[28:] = obs[28], obs[27]  # the door's hinge, the latch
        mujoco.mj_kinematics(self.model, data)
        # The arm's translation is not observed, but it moves the palm along one axis.
        reach = obs[29:32] - data.site("S_grasp").xpos
        data.qpos[0] = reach @ data.joint("ARTz").xaxis
        if first:
            self.model.body("frame").pos[:] += obs[32:35] - data.site("S_handle").xpos

    def _pose_hammer(self, data: mujoco.MjData, obs: np.ndarray, first: bool) -> None:
        data.qpos[:27] = obs[:27]
        hammer = self.model.body("Object")
        hammer.pos[:] = obs[36:39]
        mujoco.mju_euler2Quat(hammer.quat, obs[39:42], "xyz")
        if first:
            mujoco.mj_kinematics(self.model, data)
            self.model.body("nail_board").pos[:] += (
                obs[42:45] - data.site("S_target").xpos
            )

    def _pose_relocate(self, data: mujoco.MjData, obs: np.ndarray, first: bool) -> None:
        data.qpos[:30] = obs[:30]
        if first:
            mujoco.mj_kinematics(self.model, data)
            self.model.site("target").pos[:] = data.site("S_grasp").xpos - obs[33:36]
        self.model.body("Object").pos[:] = self.model.site("target").pos + obs[36:39]


def _rotation_to(direction: np.ndarray) -> np.ndarray:
    """Return the quaternion [4] of a rotation from the z axis to `direction` [3]."""
    quaternion = np.empty(4)
    mujoco.mju_quatZ2Vec(quaternion, direction)
    return quaternion
