import json

import numpy as np
import pytest

from dt_jax.runs.aggregate import (
    Curve,
    aggregate_seeds,
    interquartile_mean,
    join_curves,
)


def naive_iqm(values):
    """Drop a quarter (rounded down) of the values at each end and average the rest."""
    values = sorted(values)
    cut = int(0.25 * len(values))
    rest = values[cut : len(values) - cut]
    return sum(rest) / len(rest)


@pytest.mark.parametrize("size", range(2, 14))
def test_iqm_agrees_with_scipy(size):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(size).normal(50, 10, size)
    iqm, _, _ = interquartile_mean(values)
    assert iqm == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-12)


@pytest.mark.parametrize("size", [2, 4, 5, 10])
def test_interval_agrees_with_naive_bootstrap(size):
    values = np.random.default_rng(size).normal(50, 10, size)
    resamples = np.random.default_rng(0).integers(size, size=(2000, size))
    means = sorted(naive_iqm(values[indices]) for indices in resamples)
    _, low, high = interquartile_mean(values)
    # 2.5% and 97.5% of the 1999 distances between ranks, interpolated linearly.
    assert low == pytest.approx(means[49] + 0.975 * (means[50] - means[49]))
    assert high == pytest.approx(means[1949] + 0.025 * (means[1950] - means[1949]))


def test_interval_is_deterministic_and_leaves_numpys_generator_alone():
    """Otherwise a resumed run would log other metrics than an uninterrupted one."""
    values = np.array([17.2, 19.4, 34.1, 19.2, 21.0])
    state = np.random.get_state()  # noqa: NPY002
    first = interquartile_mean(values)
    assert interquartile_mean(values) == first
    after = np.random.get_state()  # noqa: NPY002
    assert after[2] == state[2]
    np.testing.assert_array_equal(after[1], state[1])


def test_row_has_mean_deviation_and_each_seed():
    row = aggregate_seeds((3, 4), {"a": np.array([1.0, 3.0])})
    assert row == {"a": 2.0, "a/std": 1.0, "seed_3/a": 1.0, "seed_4/a": 3.0}
    assert aggregate_seeds((3,), {"a": np.float32(1)}) == {"a": 1.0}


def test_compared_metrics_have_an_interval():
    values = np.float32([1, 3, 4, 7, 9])
    metrics = {"score": values, "loss": values}
    row = aggregate_seeds(range(5), metrics, compared=["score"])
    names = "score/iqm", "score/iqm_low", "score/iqm_high"
    assert tuple(row[name] for name in names) == interquartile_mean(values)
    assert row["score/iqm_low"] < row["score/iqm"] < row["score/iqm_high"]
    assert "loss/iqm" not in row
    assert json.loads(json.dumps(row)) == row


def test_curves_are_joined_at_common_steps():
    first = Curve(np.array([0, 5, 10]), np.array([[1.0, 2.0, 3.0]]))
    second = Curve(np.array([0, 10, 20]), np.array([[4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]))
    curve = join_curves([first, second])
    np.testing.assert_array_equal(curve.steps, [0, 10])
    np.testing.assert_array_equal(curve.values, [[1, 3], [4, 5], [7, 8]])
    np.testing.assert_array_equal(join_curves([first]).values, first.values)
