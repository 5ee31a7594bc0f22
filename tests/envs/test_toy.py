import jax
import numpy as np
import pytest
from toy import LinearEnv

HORIZONS = [3, 6, 4]


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    shapes = {"m": (4, 4), "b": (4, 2), "w": (4,), "s0": (4,)}
    return {name: 0.5 * rng.standard_normal(shape) for name, shape in shapes.items()}


def plain_loop(arrays, starts, actions, horizons):
    """Return observations, rewards and done of a loop over steps and episodes."""
    observations = np.zeros((len(actions), *starts.shape))
    rewards, done = np.zeros((2, *actions.shape[:2]))
    for n, s in enumerate(starts):
        for t, step_actions in enumerate(actions):
            s = arrays["m"] @ s + arrays["b"] @ step_actions[n]
            observations[t, n], rewards[t, n] = s, arrays["w"] @ s
            done[t, n] = t + 1 >= horizons[n]
    return observations, rewards, done


def test_matches_a_plain_loop_in_float64(arrays):
    actions = np.random.default_rng(1).standard_normal((6, 3, 2))
    with jax.enable_x64(True):
        env = LinearEnv(**arrays, horizons=HORIZONS, seeds=[5, 6, 5])
        assert (env.num_envs, env.observation_size, env.action_size) == (3, 4, 2)
        state, starts = env.reset()
        step = jax.jit(lambda s, a: jax.lax.scan(env.step, s, a)[1])(state, actions)
        assert (
            starts.dtype == step.observations.dtype == step.rewards.dtype == "float64"
        )
    starts = np.asarray(starts)
    np.testing.assert_array_equal(starts[0], starts[2])
    assert (starts[0] != starts[1]).all()
    observations, rewards, done = plain_loop(arrays, starts, actions, HORIZONS)
    np.testing.assert_allclose(step.observations, observations, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(step.rewards, rewards, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(step.done, done)


def test_dtype_is_kept_and_seeds_are_optional(arrays):
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    env = LinearEnv(**arrays, horizons=[2, 2])
    state, starts = env.reset()
    np.testing.assert_array_equal(starts, [arrays["s0"]] * 2)
    _, step = env.step(state, np.zeros((2, 2), np.float32))
    assert step.observations.dtype == np.float32
    env.check()
