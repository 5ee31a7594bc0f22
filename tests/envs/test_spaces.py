from dataclasses import replace

import jax
import numpy as np
import pytest

from dt_jax.data.registry import all_specs, lookup
from dt_jax.envs.spaces import action_units


def map_action(center, scale, action):
    """Compute as the agent does; XLA may round once or twice."""
    return center + scale * action


@pytest.mark.parametrize("env_name", sorted(all_specs()))
def test_d4rls_actions_are_not_scaled(env_name):
    spec = lookup(env_name)
    center, scale = action_units(spec, spec.action_size, 1.0)
    np.testing.assert_array_equal(center, np.zeros(spec.action_size, np.float32))
    np.testing.assert_array_equal(scale, np.ones(spec.action_size, np.float32))
    assert center.dtype == scale.dtype == np.float32


@pytest.mark.parametrize("max_action", [1.0, 3.0])
def test_max_action_maps_to_the_bounds(max_action):
    spec = replace(lookup("hopper-demo"), action_low=(-3, 0), action_high=(1.0, 0.5))
    center, scale = action_units(spec, 2, max_action)
    np.testing.assert_allclose(center - max_action * scale, [-3, 0], atol=1e-6)
    np.testing.assert_allclose(center + max_action * scale, [1, 0.5], atol=1e-6)


def test_actions_are_not_scaled_without_an_environment():
    center, scale = action_units(None, 4, 3.7)
    np.testing.assert_array_equal(center, [0, 0, 0, 0])
    np.testing.assert_array_equal(scale, [1, 1, 1, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_action", [1.0, 0.1, 3.7])
def test_saturated_action_lies_within_the_bounds(dtype, max_action):
    """It reaches them up to rounding, whichever way XLA rounds."""
    rng, n = np.random.default_rng(0), 4000
    low = rng.normal(size=n) * 10 ** rng.uniform(-3, 3, n)
    high = low + np.maximum(1e-3 * np.abs(low), 10 ** rng.uniform(-3, 3, n))
    low, high = low.astype(dtype), high.astype(dtype)
    spec = replace(
        lookup("hopper-demo"),
        action_low=tuple(low.tolist()),
        action_high=tuple(high.tolist()),
    )
    center, scale = action_units(spec, n, max_action)
    assert center.dtype == scale.dtype == np.float32
    most = np.full(n, max_action, np.float32)
    slack = 1e-3 * (high - low)
    for mapped in (map_action, jax.jit(map_action)):
        least, largest = mapped(center, scale, -most), mapped(center, scale, most)
        assert (low <= least).all()
        assert (least <= low + slack).all()
        assert (high - slack <= largest).all()
        assert (largest <= high).all()


def test_symmetric_bounds_equal_the_scale():
    high = np.random.default_rng(0).uniform(0.01, 50, 1000).astype(np.float32)
    bounds = {
        "action_low": tuple((-high).tolist()),
        "action_high": tuple(high.tolist()),
    }
    center, scale = action_units(replace(lookup("hopper-demo"), **bounds), 1000, 1.0)
    np.testing.assert_array_equal(center, np.zeros(1000, np.float32))
    np.testing.assert_array_equal(scale, high)
