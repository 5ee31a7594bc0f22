import mujoco
import numpy as np
import pytest

from dt_jax import envs
from dt_jax.data.registry import lookup
from dt_jax.video.adroit_view import AdroitModel

TASKS = ("pen", "door", "hammer", "relocate")
ENDS = ("top", "bottom")
LENGTH = 0.13  # of the pen, metres


def observe(task, data):
    """Return the observations of a state, without the joints, and their indices.

    As Gymnasium-Robotics computes them.
    """
    palm, where = data.site("S_grasp").xpos, slice(None)
    if task == "pen":
        ends = [data.site(f"{w}_{e}").xpos for w in ("object", "target") for e in ENDS]
        pointing = (ends[0] - ends[1]) / LENGTH, (ends[2] - ends[3]) / LENGTH
        found = [data.body("Object").xpos, *pointing]
        where = [*range(24, 27), *range(33, 39)]
    elif task == "door":
        handle = data.site("S_handle").xpos
        door = data.joint("latch").qpos, data.joint("door_hinge").qpos
        found, where = [*door, palm, handle, palm - handle], range(27, 38)
    elif task == "hammer":
        hammer, nail = data.body("Object"), data.site("S_target").xpos
        found, where = [palm, hammer.xpos, angles(hammer.xquat), nail], range(33, 45)
    else:
        ball, target = data.body("Object").xpos, data.site("target").xpos
        found, where = [palm - ball, palm - target, ball - target], range(30, 39)
    return np.concatenate(found), list(where)


def angles(quat):
    """Return a rotation as successive angles about x, y and z."""
    m = np.empty(9)
    mujoco.mju_quat2Mat(m, quat)
    m = m.reshape(3, 3)
    y = np.arcsin(m[0, 2])
    return np.array([np.arctan2(-m[1, 2], m[2, 2]), y, np.arctan2(-m[0, 1], m[0, 0])])


@pytest.mark.parametrize("task", TASKS)
def test_pose_reproduces_the_observation(task):
    """Exactly at a reset; later, positions are observed 2 ms before the joints."""
    spec = lookup(f"{task}-human-v1")
    model, rng = AdroitModel(task), np.random.default_rng(0)
    data = mujoco.MjData(model.model)
    for seed in (3, 4):
        env = envs.make(spec, [seed])
        observation = env.host_reset()[0]
        model.pose(data, observation, first=True)
        found, where = observe(task, data)
        np.testing.assert_allclose(found, observation[where], atol=1e-6)
        for _ in range(30):
            action = rng.uniform(-1, 1, (1, spec.action_size))
            observation = env.host_step(action).observations[0]
            model.pose(data, observation)
            found, where = observe(task, data)
            np.testing.assert_allclose(found, observation[where], atol=0.02)
            fingers = slice(24) if task == "pen" else slice(8, 28)
            low, high = model.model.jnt_range[fingers].T
            # Each joint is within its range.
            assert (low - 0.3 < data.qpos[fingers]).all()
            assert (data.qpos[fingers] < high + 0.3).all()


def test_latch_and_door_are_posed():
    """Random actions hardly move them."""
    env, model = envs.make(lookup("door-human-v1"), [3]), AdroitModel("door")
    data, observation = mujoco.MjData(model.model), env.host_reset()[0]
    model.pose(data, observation, first=True)
    observation[27:29] = 1.2, 0.5
    model.pose(data, observation)
    np.testing.assert_allclose(observe("door", data)[0][:2], [1.2, 0.5], atol=1e-6)
