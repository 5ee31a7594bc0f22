import sys

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from playing import play

from dt_jax import envs
from dt_jax.data.registry import lookup
from dt_jax.envs.envpool_env import EnvPoolEnv
from dt_jax.utils.errors import UserError

HOPPER = {"env_id": "Hopper-v4", "max_episode_steps": 1000}


def random_actions(steps, n, size, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-scale, scale, (steps, n, size)).astype(np.float32)


@pytest.mark.parametrize(
    ("env_name", "sizes"),
    [
        ("halfcheetah-medium-v2", (17, 6)),
        ("hopper-demo", (11, 3)),
        ("walker2d-medium-v2", (17, 6)),
    ],
)
def test_shapes_and_dtypes(env_name, sizes):
    spec = lookup(env_name)
    env = envs.make(spec, seeds=[3, 5])
    assert (env.observation_size, env.action_size) == sizes
    assert (spec.observation_size, spec.action_size) == sizes
    state, observations = env.reset()
    assert observations.shape == (2, sizes[0])
    assert observations.dtype == np.float32
    _, step = env.step(state, jnp.zeros((2, sizes[1])))
    env.check()
    assert step.observations.shape == (2, sizes[0])
    assert step.observations.dtype == step.rewards.dtype == np.float32
    assert step.rewards.shape == step.done.shape == (2,)
    assert step.done.dtype == bool


def test_results_do_not_depend_on_threads_or_other_episodes():
    actions = random_actions(30, 5, 3)
    seeds = [7, 8, 7, 9, 10]
    one = EnvPoolEnv(seeds=seeds, num_threads=1, **HOPPER)
    three = EnvPoolEnv(seeds=seeds, num_threads=3, **HOPPER)
    expected = play(one, actions)
    for got, want in zip(play(three, actions), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    single = EnvPoolEnv(seeds=[9], **HOPPER)
    np.testing.assert_array_equal(
        play(single, actions[:, 3:4])[0][:, 0], expected[0][:, 3]
    )


def test_reset_repeats_the_episodes():
    env = EnvPoolEnv(seeds=[1, 2, 1], **HOPPER)
    first = env.host_reset()
    env.host_step(np.ones((3, 3)))
    np.testing.assert_array_equal(env.host_reset(), first)
    np.testing.assert_array_equal(first[0], first[2])
    assert (first[0] != first[1]).any()


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


def test_episode_ends_at_the_time_limit_or_a_fall():
    env = EnvPoolEnv("HalfCheetah-v4", seeds=[0, 1], max_episode_steps=4)
    done = play(env, np.zeros((4, 2, 6)))[2]
    np.testing.assert_array_equal(done[:, 0], [False, False, False, True])
    env = EnvPoolEnv(seeds=[0], **HOPPER)
    _, _, done = play(env, np.ones((60, 1, 3)))
    assert 0 < done[:, 0].argmax() < 59


def test_actions_are_clipped():
    actions = random_actions(20, 2, 3, scale=3.0)
    env = EnvPoolEnv(seeds=[0, 1], **HOPPER)
    wild, clipped = play(env, actions), play(env, np.clip(actions, -1, 1))
    np.testing.assert_array_equal(wild[0], clipped[0])
    np.testing.assert_array_equal(wild[1], clipped[1])


# Mean return ± standard error of a uniformly random policy, 256 episodes of another
# implementation; D4RL's ref_min of HalfCheetah, -280.2, is such a mean.
@pytest.mark.parametrize(
    ("env_name", "mean", "error"),
    [
        ("hopper-demo", 18.56, 1.16),
        ("halfcheetah-demo", -288.1, 5.1),
        ("walker2d-demo", 3.33, 0.42),
    ],
)
def test_random_policy_has_the_reference_return(env_name, mean, error):
    n = 96
    env = envs.make(lookup(env_name), envs.episode_seeds(0, n))
    rng = np.random.default_rng(1)
    env.host_reset()
    running, returns = np.ones(n, bool), np.zeros(n)
    while running.any():
        _, rewards, done = env.host_step(rng.uniform(-1, 1, (n, env.action_size)))
        returns += running * rewards
        running &= ~done
    own_error = returns.std() / np.sqrt(n)
    assert abs(returns.mean() - mean) < 4 * np.hypot(error, own_error)


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


def test_nan_action_is_refused():
    env = EnvPoolEnv(seeds=[0, 1, 2], **HOPPER)
    actions = random_actions(4, 3, 3)
    actions[2, 1, 0] = np.nan
    with pytest.raises(UserError, match="NaN action in episode 1 of 3"):
        play(env, actions)


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


def test_actions_of_ended_episodes_are_ignored():
    env = EnvPoolEnv("HalfCheetah-v4", seeds=[0], max_episode_steps=2)
    play(env, np.zeros((2, 1, 6)))
    env.host_step(np.full((1, 6), np.nan))
