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


def random_batch(model, threads):
    batch = MujocoBatch(model, N, SUBSTEPS, threads)
    rng = np.random.default_rng(0)
    batch.qpos += rng.uniform(-3, 3, batch.qpos.shape)
    batch.qvel += rng.uniform(-1, 1, batch.qvel.shape)
    return batch


def controls(steps):
    return np.random.default_rng(1).uniform(-2, 2, (steps, N, 1))


def test_batch_matches_single_mj_steps(pendulum):
    batch, actions = random_batch(pendulum, threads=2), controls(40)
    expected = []
    for i in range(N):
        data = mujoco.MjData(pendulum)
        data.qpos, data.qvel = batch.qpos[i], batch.qvel[i]
        for action in actions:
            data.ctrl = action[i]
            mujoco.mj_step(pendulum, data, SUBSTEPS)
        expected.append([*data.qpos, *data.qvel])
    for action in actions:
        batch.step(action)
    np.testing.assert_allclose(batch.observations, expected, atol=1e-6)


def test_results_do_not_depend_on_threads_other_copies_or_the_past(pendulum):
    one, three = random_batch(pendulum, 1), random_batch(pendulum, 3)
    actions = controls(30)
    for action in actions:
        one.step(action)
        three.step(action)
    np.testing.assert_array_equal(three.observations, one.observations)
    single = MujocoBatch(pendulum, 1, SUBSTEPS)
    single.qpos, single.qvel = one.qpos[2:3], one.qvel[2:3]
    one.step(actions[0])
    single.step(actions[0, 2:3])
    np.testing.assert_array_equal(single.observations[0], one.observations[2])


def test_only_moving_copies_are_stepped(pendulum):
    batch, complete = random_batch(pendulum, 2), random_batch(pendulum, 2)
    before = batch.observations
    moving = np.array([True, False, True, True, False])
    batch.step(controls(1)[0], moving)
    changed = (batch.observations != before).any(axis=1)
    np.testing.assert_array_equal(changed, moving)
    complete.step(controls(1)[0])
    np.testing.assert_array_equal(
        batch.observations[moving], complete.observations[moving]
    )
    after = batch.observations
    batch.step(controls(1)[0], np.zeros(N, bool))
    np.testing.assert_array_equal(batch.observations, after)


def test_ant_has_no_state_beyond_qpos_and_qvel():
    """MujocoBatch keeps time, qpos and qvel: a model must have no other state."""
    model = antmaze.model_spec(mazes.antmaze("umaze")).compile()
    size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    assert size == 1 + model.nq + model.nv


def test_divergence_is_an_error(pendulum, tmp_path, monkeypatch):
    """By default MuJoCo would reset the copy."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log
    batch = random_batch(pendulum, 2)
    batch.qvel[1] = 1e12
    with pytest.raises(UserError, match="simulation has become unstable"):
        batch.step(controls(1)[0])
