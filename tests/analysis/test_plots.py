from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from dt_jax.analysis.plots import plot_loss, plot_returns, plot_targets
from dt_jax.runs.aggregate import Curve
from dt_jax.runs.evaluations import Evaluation

HISTOGRAM = {"edges": [100.0, 300.0, 500.0, 1000.0], "counts": [4, 0, 8]}
DATASET = {"return_mean": 500.0, "return_best": 900.0, "return_histogram": HISTOGRAM}
EMPTY = Curve(np.zeros(0, int), np.zeros((1, 0)))


@pytest.fixture
def axes():
    return Figure().subplots()


def lines(axes):
    """Return the points of each line by its label."""
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def make_evaluation(seeds=2):
    returns = np.arange(12.0).reshape(2, 2, 3)
    returns = returns if seeds == 2 else returns[0]
    return Evaluation(
        target_returns=np.array([800.0, 200.0]),
        seeds=np.arange(3),
        returns=returns,
        lengths=np.ones_like(returns),
    )


def test_line_is_the_mean_and_band_the_deviation_over_seeds(axes):
    curve = Curve(np.array([0, 10]), np.array([[1.0, 3.0], [3.0, 9.0]]))
    plot_targets(axes, [(3600.0, curve)], "score")
    assert lines(axes) == {"target 3600": [[0, 2], [10, 6]]}
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices.tolist()
    for corner in ([0, 1], [0, 3], [10, 3], [10, 9]):
        assert corner in corners


def test_single_seed_has_no_band(axes):
    curve = Curve(np.array([0, 10]), np.array([[1.0, 3.0]]))
    plot_loss(axes, curve, curve, "action MSE")
    assert set(lines(axes)) == {"training loss", "held-out action MSE"}
    assert not axes.collections


def test_logarithmic_band_ends_at_the_lowest_value(axes):
    values = np.array([[0.001, 0.1], [0.001, 0.1], [1.0, 0.1]])
    plot_loss(axes, Curve(np.array([1, 2]), values), EMPTY, "")
    (band,) = axes.collections
    assert band.get_paths()[0].vertices[:, 1].min() == 0.001


@pytest.mark.parametrize(
    ("least", "scale"), [(0.1, "log"), (0.9, "linear"), (-0.5, "linear")]
)
def test_loss_axis_is_logarithmic_for_positive_values_of_a_wide_range(
    axes, least, scale
):
    plot_loss(axes, Curve(np.array([1, 2]), np.array([[1.0, least]])), EMPTY, "")
    assert axes.get_yscale() == scale


def test_narrow_loss_axis_has_plain_numbers(axes):
    plot_loss(axes, Curve(np.array([1, 2]), np.array([[0.99401, 0.99402]])), EMPTY, "")
    axes.figure.canvas.draw()
    assert axes.yaxis.get_offset_text().get_text() == ""
    assert axes.get_yticklabels()[1].get_text().startswith("0.9940")


def test_coinciding_curves_of_targets_are_all_visible(axes):
    curve = Curve(np.array([0, 10]), np.array([[1.0, 3.0]]))
    plot_targets(axes, [(1.0, curve), (2.0, curve), (3.0, curve)], "score")
    first, *others = [line._unscaled_dash_pattern[1] for line in axes.lines]
    assert first[1] == 0  # no gaps
    dashes = [first[0], *(dash for dash, gap in others if gap > 0)]
    assert len(dashes) == 3
    assert dashes == sorted({*dashes}, reverse=True)


@pytest.mark.parametrize(("target", "has_legend"), [(3600.0, True), (np.nan, False)])
def test_agent_without_targets_has_no_legend(axes, target, has_legend):
    curve = Curve(np.array([0, 10]), np.array([[1.0, 3.0]]))
    plot_targets(axes, [(target, curve)], "score")
    assert (axes.get_legend() is not None) == has_legend


def test_tick_labels_of_targets_do_not_overlap():
    figure = Figure(figsize=(4.8, 4.4), layout="constrained")
    axes = figure.subplots()
    evaluation = replace(make_evaluation(1), target_returns=np.array([-1600.0, -71.7]))
    histogram = {"edges": np.linspace(-1750, -0.1, 4), "counts": [4, 0, 8]}
    plot_returns(axes, 100, evaluation, DATASET | {"return_histogram": histogram})
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(left.x1 + 5 < right.x0 for left, right in pairwise(boxes))


def test_only_recorded_curves_are_plotted(axes):
    curve = Curve(np.array([1]), np.array([[0.5]]))
    plot_loss(axes, curve, EMPTY, "")
    assert lines(axes) == {"training loss": [[1, 0.5]]}
    other = Figure().subplots()
    plot_loss(other, EMPTY, curve, "action MSE")
    assert lines(other) == {"held-out action MSE": [[1, 0.5]]}


@pytest.mark.parametrize("seeds", [1, 2])
def test_returns_are_plotted_over_sorted_targets(axes, seeds):
    plot_returns(axes, 100, make_evaluation(seeds), DATASET)
    means = [1.0, 4.0] if seeds == 1 else [4.0, 7.0]
    assert lines(axes)["mean"] == [[200, means[1]], [800, means[0]]]
    scattered = axes.collections[0].get_offsets().tolist()
    returns = make_evaluation(seeds).returns.reshape(-1, 2, 3)
    expected = [[t, r] for k, t in enumerate((800, 200)) for r in returns[:, k].ravel()]
    assert sorted(scattered) == sorted(expected)
    assert lines(axes)["data, best"][0][1] == 900
    assert lines(axes)["data, mean"][0][1] == 500


def test_histogram_of_the_data_is_behind_the_returns(axes):
    plot_returns(axes, 100, make_evaluation(), DATASET)
    front, behind = axes.figure.axes
    (bars,) = behind.patches
    values, edges, _ = bars.get_data()
    assert (values.tolist(), edges.tolist()) == ([4, 0, 8], HISTOGRAM["edges"])
    assert behind.get_zorder() < front.get_zorder()
    left, right = front.get_xlim()
    assert (left, right) == behind.get_xlim()
    assert left <= 100
    assert right >= 1000
    assert "data, returns" in front.get_legend_handles_labels()[1]
