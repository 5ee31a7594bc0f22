import mujoco
import numpy as np
import pytest

from dt_jax.envs import antmaze, mazes
from dt_jax.envs.mujoco_batch import MujocoBatch
from dt_jax.utils.errors import UserError

N, SUBSTEPS = 5, 3


@pytest.fixture(scope="module")
def pendulum():
    """A driven pendulum with contacts, so that the solver has work."""
    return mujoco.MjModel.from_xml_string(
        """<mujoco>
          <worldbody>
            <geom type="plane" size="1 1 1" pos="0 0 -0.5"/>
            <body><joint name="hinge" type="hinge" axis="0 1 0" damping="0.1"/>
              <geom type="capsule" fromto="0 0 0 0 0 -0.6" size="0.05"/></body>
          </worldbody>
          <actuator>
            <motor joint="hinge" ctrlrange="-2 2" ctrllimited="true"/>
          </actuator>
        </mujoco>"""
    )


def scattered(model, threads):
    bodies = MujocoBatch(model, N, SUBSTEPS, threads)
    rng = np.random.default_rng(0)
    bodies.qpos += rng.uniform(-3, 3, bodies.qpos.shape)
    bodies.qvel += rng.uniform(-1, 1, bodies.qvel.shape)
    return bodies


def controls(steps):
    return np.random.default_rng(1).uniform(-2, 2, (steps, N, 1))


def test_against_mj_step_one_at_a_time(pendulum):
    bodies, actions = scattered(pendulum, threads=2), controls(40)
    expected = []
    for i in range(N):
        data = mujoco.MjData(pendulum)
        data.qpos, data.qvel = bodies.qpos[i], bodies.qvel[i]
        for action in actions:
            data.ctrl = action[i]
            mujoco.mj_step(pendulum, data, SUBSTEPS)
        expected.append([*data.qpos, *data.qvel])
    for action in actions:
        bodies.step(action)
    np.testing.assert_allclose(bodies.observations, expected, atol=1e-6)


def test_neither_threads_nor_the_other_bodies_nor_the_past_matter(pendulum):
    one, three = scattered(pendulum, 1), scattered(pendulum, 3)
    actions = controls(30)
    for action in actions:
        one.step(action)
        three.step(action)
    np.testing.assert_array_equal(three.observations, one.observations)
    alone = MujocoBatch(pendulum, 1, SUBSTEPS)
    alone.qpos, alone.qvel = one.qpos[2:3], one.qvel[2:3]
    one.step(actions[0])
    alone.step(actions[0, 2:3])
    np.testing.assert_array_equal(alone.observations[0], one.observations[2])


def test_only_those_that_move_are_stepped(pendulum):
    bodies, all_of_them = scattered(pendulum, 2), scattered(pendulum, 2)
    before = bodies.observations
    moving = np.array([True, False, True, True, False])
    bodies.step(controls(1)[0], moving)
    changed = (bodies.observations != before).any(axis=1)
    np.testing.assert_array_equal(changed, moving)
    all_of_them.step(controls(1)[0])
    np.testing.assert_array_equal(
        bodies.observations[moving], all_of_them.observations[moving]
    )
    after = bodies.observations
    bodies.step(controls(1)[0], np.zeros(N, bool))
    np.testing.assert_array_equal(bodies.observations, after)


def test_the_ant_has_what_the_state_is_made_of():
    """MujocoBatch keeps time, qpos and qvel: a model must have no other state."""
    model = antmaze.model_spec(mazes.antmaze("umaze")).compile()
    size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    assert size == 1 + model.nq + model.nv


def test_numbers_that_explode_are_told(pendulum, tmp_path, monkeypatch):
    """And not put back to the start, as MuJoCo does by itself."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log
    bodies = scattered(pendulum, 2)
    bodies.qvel[1] = 1e12
    with pytest.raises(UserError, match="simulation has become unstable"):
        bodies.step(controls(1)[0])
