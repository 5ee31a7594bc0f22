from dataclasses import replace

import jax
import numpy as np
import pytest

from dt_jax.data.registry import all_specs, lookup
from dt_jax.envs.spaces import action_range, action_units, check_bounds
from dt_jax.utils.errors import UserError

HOPPER = lookup("hopper-demo")


def env(low, high):
    """Return an environment outside D4RL with these bounds on actions."""
    bounds = {"action_low": tuple(low), "action_high": tuple(high)}
    return replace(HOPPER, name="Mine-v0", action_size=len(low), **bounds)


def units(spec, actions, max_action=1.0):
    low, high, _ = action_range(spec, np.asarray(actions, np.float32))
    return action_units(low, high, max_action)


def map_action(center, scale, action):
    """Compute as the agent does; XLA may round once or twice."""
    return center + scale * action


@pytest.mark.parametrize(
    "env_name", [name for name, spec in all_specs().items() if spec.engine != "tabular"]
)
def test_d4rls_actions_are_not_scaled(env_name):
    """However little of the bounds the data uses."""
    spec = lookup(env_name)
    actions = np.full((3, spec.action_size), [[0.1], [0.101], [0.102]], np.float32)
    center, scale = units(spec, actions)
    np.testing.assert_array_equal(center, np.zeros(spec.action_size, np.float32))
    np.testing.assert_array_equal(scale, np.ones(spec.action_size, np.float32))
    assert center.dtype == scale.dtype == np.float32


@pytest.mark.parametrize("max_action", [1.0, 3.0])
def test_max_action_maps_to_the_bounds(max_action):
    center, scale = units(env((-3, 0), (1.0, 0.5)), [[-2, 0.1], [0, 0.4]], max_action)
    np.testing.assert_allclose(center - max_action * scale, [-3, 0], atol=1e-6)
    np.testing.assert_allclose(center + max_action * scale, [1, 0.5], atol=1e-6)


@pytest.mark.parametrize("max_action", [1.0, 3.0])
def test_without_an_environment_each_number_is_mapped_from_its_own_range(max_action):
    low = np.array([-0.001, 100, 0, -1000, 5], np.float32)
    high = np.array([0.001, 500, 1, -999, 5], np.float32)
    rows = [low, high, (low + high) / 2]
    center, scale = units(None, rows, max_action)
    np.testing.assert_allclose(center[:4] - max_action * scale[:4], low[:4], atol=1e-6)
    np.testing.assert_allclose(
        center[:4] + max_action * scale[:4], high[:4], 1e-6, 1e-7
    )
    assert (center[4], scale[4]) == (5, 1)  # a constant number


def test_ranges_too_small_for_float32_have_scale_1():
    """Division by a scale of zero would give NaN."""
    step = np.nextafter(np.float32(1), np.float32(2))
    center, scale = units(None, [[1, 0, -1e-40], [step, 0, 1e-40]])
    np.testing.assert_array_equal(scale, [1, 1, 1])
    assert center[0] in (1, step)


def test_numbers_that_use_less_than_a_tenth_of_their_bounds_have_the_datas_range():
    spec = env((-1000, -1000, -1), (1000, 1000, 1))
    actions = [[-1, -100, -0.9], [3, 100, 0.9]]
    low, high, narrow = action_range(spec, np.float32(actions))
    assert narrow.tolist() == [True, False, False]
    assert (low[0], high[0]) == (-1, 3)
    np.testing.assert_array_equal([low[1:], high[1:]], [[-1000, -1], [1000, 1]])


@pytest.mark.parametrize(
    ("value", "bounds", "expected"),
    [(0.3, (-1000, 1000), (-0.7, 1.3)), (0.3, (0, 1), (0.25, 0.35))],
)
def test_a_constant_number_is_in_the_middle_of_a_small_range(value, bounds, expected):
    spec = env(bounds[:1], bounds[1:])
    low, high, _ = action_range(spec, np.full((3, 1), value, np.float32))
    np.testing.assert_allclose([low[0], high[0]], expected, atol=1e-6)


@pytest.mark.parametrize("value", [-2, -1, 0.99, 1, 7])
def test_the_range_never_leaves_the_bounds(value):
    spec = env([-1], [1])
    low, high, _ = action_range(spec, np.full((3, 1), value, np.float32))
    assert -1 <= low[0] <= np.clip(value, -1, 1) <= high[0] <= 1
    assert high[0] - low[0] == pytest.approx(0.2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_action", [1.0, 0.1, 3.7])
def test_saturated_action_lies_within_the_bounds(dtype, max_action):
    """It reaches them up to rounding, whichever way XLA rounds."""
    rng, n = np.random.default_rng(0), 4000
    low = rng.normal(size=n) * 10 ** rng.uniform(-3, 3, n)
    high = low + np.maximum(1e-3 * np.abs(low), 10 ** rng.uniform(-3, 3, n))
    low, high = low.astype(dtype), high.astype(dtype)
    center, scale = action_units(low, high, max_action)
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
    center, scale = action_units(-high, high, 1.0)
    np.testing.assert_array_equal(center, np.zeros(1000, np.float32))
    np.testing.assert_array_equal(scale, high)


def test_other_bounds_than_those_of_training_are_refused():
    spec = env((-1, 0.1), (1, 0.4))
    trained = spec.action_bounds.tolist()
    check_bounds("run", trained, spec, "choose another")
    single = spec.action_bounds.astype(np.float32).tolist()  # of another engine
    check_bounds("run", single, spec, "choose another")
    check_bounds("run", None, spec, "choose another")
    check_bounds("run", trained, None, "choose another")
    other = replace(spec, name="Other-v0", action_high=(1, 0.5))
    message = "run was .*: number 1 was between 0.1 and 0.4, in Other-v0 .* and 0.5;"
    with pytest.raises(UserError, match=message):
        check_bounds("run", trained, other, "choose another")
