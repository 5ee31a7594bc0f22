"""Where the Adroit hand and its objects are, from an observation.

EnvPool tells no state, but what can be seen of it follows from the observation, by
turning round how Gymnasium-Robotics' adroit_hand/*.py observe: all but how far the pen
and the ball have turned around themselves. Positions of the palm and of objects are
observed as they were one simulation step of 2 ms before the joints.
"""

from pathlib import Path

import envpool
import mujoco
import numpy as np

_ASSETS = "mujoco/robotics/assets"  # in EnvPool's


class Adroit:
    """The model of one task, posed as it was observed in one episode.

    Objects are placed as bodies of the model; their own joints stay at 0.

    Attributes:
      model: EnvPool's.
    """

    def __init__(self, task: str):
        """Load the model of "pen", "door", "hammer" or "relocate"."""
        config = envpool.make_spec(f"AdroitHand{task.capitalize()}-v1").config
        path = Path(config.base_path) / _ASSETS / config.xml_file
        self.model = mujoco.MjModel.from_xml_path(str(path))
        self._place, self._pose = _TASKS[task]

    def pose(
        self, data: mujoco.MjData, observation: np.ndarray, first: bool = False
    ) -> None:
        """Put the hand and the objects where they were observed.

        Args:
          data: the model's state, whose positions are set.
          observation: [S].
          first: whether the episode begins with it, and with places drawn anew.
        """
        seen = np.asarray(observation, np.float64)
        data.qpos[:] = 0
        self._pose(self.model, data, seen)
        if first:
            mujoco.mj_kinematics(self.model, data)
            self._place(self.model, data, seen)
            self._pose(self.model, data, seen)
        mujoco.mj_kinematics(self.model, data)


def _place_pen(model: mujoco.MjModel, data: mujoco.MjData, seen: np.ndarray) -> None:
    model.body("target").quat[:] = _turned_to(seen[36:39])


def _pose_pen(model: mujoco.MjModel, data: mujoco.MjData, seen: np.ndarray) -> None:
    data.qpos[:24] = seen[:24]
    pen = model.body("Object")
    pen.pos[:], pen.quat[:] = seen[24:27], _turned_to(seen[33:36])


def _place_door(model: mujoco.MjModel, data: mujoco.MjData, seen: np.ndarray) -> None:
    model.body("frame").pos[:] += seen[32:35] - data.site("S_handle").xpos


def _pose_door(model: mujoco.MjModel, data: mujoco.MjData, seen: np.ndarray) -> None:
    data.qpos[1:28] = seen[:27]
    data.qpos[28:] = seen[28], seen[27]  # the door's hinge, the latch
    mujoco.mj_kinematics(model, data)
    # The arm's reach is not observed, but it moves the palm along one axis.
    reach = seen[29:32] - data.site("S_grasp").xpos
    data.qpos[0] = reach @ data.joint("ARTz").xaxis


def _place_hammer(model: mujoco.MjModel, data: mujoco.MjData, seen: np.ndarray) -> None:
    model.body("nail_board").pos[:] += seen[42:45] - data.site("S_target").xpos


def _pose_hammer(model: mujoco.MjModel, data: mujoco.MjData, seen: np.ndarray) -> None:
    data.qpos[:27] = seen[:27]
    hammer = model.body("Object")
    hammer.pos[:] = seen[36:39]
    mujoco.mju_euler2Quat(hammer.quat, seen[39:42], "xyz")


def _place_ball(model: mujoco.MjModel, data: mujoco.MjData, seen: np.ndarray) -> None:
    model.site("target").pos[:] = data.site("S_grasp").xpos - seen[33:36]


def _pose_ball(model: mujoco.MjModel, data: mujoco.MjData, seen: np.ndarray) -> None:
    data.qpos[:30] = seen[:30]
    model.body("Object").pos[:] = model.site("target").pos + seen[36:39]


# What an episode draws anew, and what moves.
_TASKS = {
    "pen": (_place_pen, _pose_pen),
    "door": (_place_door, _pose_door),
    "hammer": (_place_hammer, _pose_hammer),
    "relocate": (_place_ball, _pose_ball),
}


def _turned_to(direction: np.ndarray) -> np.ndarray:
    """Return the quaternion [4] of a rotation that takes z to `direction` [3]."""
    quat = np.empty(4)
    mujoco.mju_quatZ2Vec(quat, direction)
    return quat
