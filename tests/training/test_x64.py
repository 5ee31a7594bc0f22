"""JAX_ENABLE_X64=1, as a program around the library may need it."""

import jax
import numpy as np
import pytest
from helpers import changed, restored, untimed

import dt_jax


@pytest.fixture
def x64():
    """Return a function that sets JAX's x64 mode, for all threads."""
    yield lambda enabled: jax.config.update("jax_enable_x64", enabled)
    jax.config.update("jax_enable_x64", False)


@pytest.mark.slow
def test_training_evaluation_and_policy_compute_in_float32(x64, tmp_path, small_config):
    """The same numbers, and arrays of the same types, so that runs can be resumed."""
    config = changed(
        small_config,
        eval_episodes=8,  # played by two threads
        num_seeds=2,
        holdout_fraction=0.5,
        compute_dtype="bfloat16",
    )
    runs, played, actions = {}, {}, {}
    for enabled in (False, True):
        x64(enabled)
        runs[enabled] = dt_jax.train(config, tmp_path / f"run-{enabled}")
        played[enabled] = dt_jax.evaluate(runs[enabled], episodes=2).returns
        policy = runs[enabled].policy()
        policy.reset([30.0, 5.0])
        observations = np.ones((2, policy.agent.observation_size))
        policy.act(observations)
        actions[enabled] = policy.act(observations, [1.0, 2.0])
    x64(False)
    assert actions[True].dtype == np.float32
    np.testing.assert_allclose(actions[True], actions[False], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(played[True], played[False], rtol=1e-3)
    workdirs = [runs[enabled].workdir for enabled in (True, False)]
    for item in ("params", "train"):
        ours, theirs = ([*restored(each, item).items()] for each in workdirs)
        assert [(k, v[:2]) for k, v in ours] == [(k, v[:2]) for k, v in theirs]
    for ours, theirs in zip(*map(untimed, workdirs), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)
