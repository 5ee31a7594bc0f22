"""Networks of single transitions, compared with plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dt_jax.networks.critics import (
    MLP,
    DeterministicPolicy,
    GaussianPolicy,
    StateValue,
    TwinQ,
    apply,
    normal_log_prob,
)

S, A, D = 3, 2, 7
RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(5, 4, S)).astype(np.float32)
ACTIONS = RNG.normal(size=(5, 4, A)).astype(np.float32)


def init(network, *inputs):
    return jax.jit(network.init)(jax.random.key(0), *inputs)["params"]


def plain(params, x, i=...):
    """An MLP of one hidden layer in NumPy; `i` selects one of stacked networks."""
    first, last = params["Linear_0"], params["Linear_1"]
    hidden = np.maximum(x @ first["kernel"][i] + first["bias"][i], 0)
    return hidden @ last["kernel"][i] + last["bias"][i]


def close(ours, theirs):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_twin_q_is_two_different_networks_of_state_and_action():
    params = init(TwinQ(D, 1), STATES, ACTIONS)
    found = apply(TwinQ(D, 1), params, STATES, ACTIONS)
    both = np.concatenate([STATES, ACTIONS], axis=-1)
    weights = jax.device_get(params["q"])
    close(found, np.stack([plain(weights, both, i)[..., 0] for i in (0, 1)]))
    assert np.abs(found[0] - found[1]).min() > 1e-4


def test_state_value_has_one_number_per_state():
    params = init(StateValue(D, 1), STATES)
    found = apply(StateValue(D, 1), params, STATES)
    close(found, plain(jax.device_get(params["mlp"]), STATES)[..., 0])


def test_actions_are_within_max_action():
    policy = DeterministicPolicy(A, 0.4, D, 1)
    params = init(policy, STATES)
    far = apply(policy, params, 1e3 * STATES)
    assert 0.39 < np.abs(far).max() <= 0.4
    found = apply(policy, params, STATES)
    close(found, 0.4 * np.tanh(plain(jax.device_get(params["mlp"]), STATES)))


@pytest.mark.parametrize(("raw", "clipped"), [(0.5, 0.5), (9.0, 2.0), (-30.0, -20.0)])
def test_deviations_of_a_gaussian_policy_are_clipped(raw, clipped):
    mean = DeterministicPolicy(A, 0.4, D, 1)
    params = init(GaussianPolicy(mean), STATES)
    np.testing.assert_array_equal(params["log_std"], np.zeros(A))
    params = params | {"log_std": jnp.full(A, raw)}
    found, log_std = apply(GaussianPolicy(mean), params, STATES)
    close(found, apply(mean, params["mean"], STATES))
    np.testing.assert_array_equal(log_std, np.full(A, clipped, np.float32))


def test_log_probability_is_that_of_a_normal_distribution():
    mean, log_std = 0.5 * ACTIONS + 1, jnp.array([-1.0, 0.5])
    found = normal_log_prob(ACTIONS, mean, log_std)
    scale = jnp.broadcast_to(jnp.exp(log_std), mean.shape)
    close(found, jax.scipy.stats.norm.logpdf(ACTIONS, mean, scale))


def test_initial_weights_are_uniform_within_one_over_the_root_of_the_inputs():
    """torch's default for kernels and biases."""
    params = init(MLP(50, 400, 1), jnp.ones((1, 100)))
    for name, bound in (("Linear_0", 0.1), ("Linear_1", 0.05)):
        for x in jax.tree.leaves(params[name]):
            assert 0.9 * bound < np.abs(x).max() <= bound
            assert np.std(x) == pytest.approx(bound / 3**0.5, rel=0.15)


def test_dropout_acts_in_training_only():
    mlp = MLP(1, 64, 2, dropout=0.5)
    params = init(mlp, STATES)
    key = {"dropout": jax.random.key(1)}
    same = [apply(mlp, params, STATES), apply(MLP(1, 64, 2), params, STATES)]
    np.testing.assert_array_equal(*same)
    dropped = apply(mlp, params, STATES, deterministic=False, rngs=key)
    assert np.abs(dropped - same[0]).min() > 1e-5
