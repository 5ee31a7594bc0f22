from importlib.resources import files

import numpy as np
import pytest

from dt_jax.data.registry import lookup
from dt_jax.datasets.demo.locomotion import LEVELS, LinearPolicy


@pytest.mark.parametrize("family", ["halfcheetah", "hopper", "walker2d"])
def test_actions_follow_the_formula(family):
    spec = lookup(f"{family}-demo")
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((5, spec.observation_size)).astype(np.float32)
    stored = files("dt_jax.datasets.demo") / "policies" / f"{family}.npz"
    with np.load(str(stored)) as arrays:
        arrays = dict(arrays)
    for level in range(LEVELS):
        policy = LinearPolicy(family, level, 0.0, np.random.default_rng(1))
        actions = policy.act(observations)
        assert actions.dtype == np.float32
        for row, action in zip(observations, actions, strict=True):
            features = (row - arrays["mean"][level]) / arrays["std"][level]
            expected = np.clip(arrays["W"][level] @ features, -1, 1)
            np.testing.assert_allclose(action, expected, atol=1e-5)


def test_noise_has_the_given_deviation_and_is_added_before_clipping():
    observations = np.zeros((2000, 11), np.float32)
    quiet = LinearPolicy("hopper", 0, 0.0, np.random.default_rng(2)).act(observations)
    noisy = LinearPolicy("hopper", 0, 0.1, np.random.default_rng(2)).act(observations)
    assert np.abs(noisy).max() <= 1
    inside = np.abs(quiet[0]) < 0.5
    assert inside.any()
    spread = (noisy - quiet)[:, inside].std(axis=0)
    np.testing.assert_allclose(spread, 0.1, rtol=0.1)
