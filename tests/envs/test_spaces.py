from dataclasses import replace

import numpy as np
import pytest

from dt_jax.envs.spaces import action_units
from dt_jax.registry import all_specs, lookup


@pytest.mark.parametrize("env_name", sorted(all_specs()))
def test_d4rls_actions_are_left_alone(env_name):
    spec = lookup(env_name)
    center, scale = action_units(spec, spec.action_size, 1.0)
    np.testing.assert_array_equal(center, np.zeros(spec.action_size, np.float32))
    np.testing.assert_array_equal(scale, np.ones(spec.action_size, np.float32))
    assert center.dtype == scale.dtype == np.float32


@pytest.mark.parametrize("max_action", [1.0, 3.0])
def test_the_bounds_are_mapped_to_max_action(max_action):
    spec = replace(lookup("hopper-demo"), action_low=(-3, 0), action_high=(1.0, 0.5))
    center, scale = action_units(spec, 2, max_action)
    np.testing.assert_allclose(center - max_action * scale, [-3, 0], atol=1e-6)
    np.testing.assert_allclose(center + max_action * scale, [1, 0.5], atol=1e-6)


@pytest.mark.parametrize("max_action", [1.0, 0.1, 3.7])
def test_without_an_environment_the_units_are_the_same(max_action):
    center, scale = action_units(None, 4, max_action)
    np.testing.assert_array_equal(center, [0, 0, 0, 0])
    np.testing.assert_array_equal(scale, [1, 1, 1, 1])
