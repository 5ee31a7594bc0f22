import sys

import jax
import numpy as np
import psutil
import pytest
from playing import play

from dt_jax.envs.envpool_env import EnvPoolEnv
from dt_jax.utils.errors import UserError

HOPPER = {"env_id": "Hopper-v4", "max_episode_steps": 1000}


def random_actions(steps, n, size):
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (steps, n, size)).astype(np.float32)


@pytest.mark.skipif(sys.platform != "linux", reason="measured on Linux only")
def test_memory_does_not_grow_with_resets():
    def resident():
        return psutil.Process().memory_info().rss / 1e6

    env = EnvPoolEnv(seeds=range(50), **HOPPER)  # 1 MB each
    after = []
    for _ in range(10):
        env.host_reset()
        after.append(resident())
    assert np.median(after[-5:]) < after[0] + 12  # without malloc_trim: 30 to 50 more


def test_episode_ends_with_a_fall():
    env = EnvPoolEnv(seeds=[0], **HOPPER)
    _, _, done = play(env, np.ones((60, 1, 3)))
    assert 0 < done[:, 0].argmax() < 59


def in_scan(env, actions):
    """Return the steps of a compiled scan: as `play`, without the first observation."""

    @jax.jit
    def run(state, actions):
        return jax.lax.scan(env.step, state, actions)[1]

    state, _ = env.reset()
    return jax.block_until_ready(run(state, actions))


def test_compiled_scan_matches_host_steps():
    env = EnvPoolEnv(seeds=[0, 1, 2], max_episode_steps=15, env_id="Walker2d-v4")
    actions = random_actions(20, 3, 6)
    observations, rewards, done = play(env, actions)
    step = in_scan(env, actions)
    env.check()
    np.testing.assert_array_equal(step.observations, observations[1:])
    np.testing.assert_array_equal(step.rewards, rewards)
    np.testing.assert_array_equal(step.done, done)


def test_nan_action_in_a_compiled_program_is_raised_by_check(caplog):
    env = EnvPoolEnv(seeds=[0, 1, 2], **HOPPER)
    actions = random_actions(4, 3, 3)
    bad = actions.copy()
    bad[2, 1, 0] = np.nan
    step = in_scan(env, bad)
    with pytest.raises(UserError, match="NaN action in episode 1 of 3"):
        env.check()
    assert not caplog.records
    assert np.isfinite(step.rewards[:2]).all()
    assert not step.done[:2].any()
    assert np.isnan(step.rewards[2:]).all()
    assert step.done[2:].all()
    in_scan(env, actions)  # a reset clears the error
    env.check()
