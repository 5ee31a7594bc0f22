import numpy as np
import pytest
from matplotlib.figure import Figure

from dt_jax.analysis import figures
from dt_jax.runs.aggregate import Curve, joined
from dt_jax.runs.evaluations import Evaluation

DATASET = {"return_mean": 500.0, "return_best": 900.0}
HISTOGRAM = {"edges": [100.0, 300.0, 500.0, 1000.0], "counts": [4, 0, 8]}
NOTHING = Curve(np.zeros(0, int), np.zeros((1, 0)))


@pytest.fixture
def axes():
    return Figure().subplots()


def drawn(axes):
    """Return the points of each line by its name."""
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def make_evaluation(seeds=2):
    returns = np.arange(12.0).reshape(2, 2, 3)
    return Evaluation(
        target_returns=np.array([800.0, 200.0]),
        seeds=np.arange(3),
        returns=returns if seeds == 2 else returns[0],
        lengths=np.ones_like(returns if seeds == 2 else returns[0]),
    )


def test_a_line_is_the_mean_and_a_band_the_deviation_over_seeds(axes):
    curve = Curve(np.array([0, 10]), np.array([[1.0, 3.0], [3.0, 9.0]]))
    figures.draw_targets(axes, {3600.0: curve}, "score")
    assert drawn(axes) == {"target 3600": [[0, 2], [10, 6]]}
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices.tolist()
    for corner in ([0, 1], [0, 3], [10, 3], [10, 9]):
        assert corner in corners


def test_of_one_seed_there_is_no_band(axes):
    curve = Curve(np.array([0, 10]), np.array([[1.0, 3.0]]))
    figures.draw_loss(axes, curve, curve)
    assert set(drawn(axes)) == {"training loss", "held-out actions"}
    assert not axes.collections


def test_a_band_of_losses_ends_at_the_lowest(axes):
    values = np.array([[0.001, 0.1], [0.001, 0.1], [1.0, 0.1]])
    figures.draw_loss(axes, Curve(np.array([1, 2]), values), NOTHING)
    (band,) = axes.collections
    assert band.get_paths()[0].vertices[:, 1].min() == 0.001


def test_only_what_was_measured_is_drawn(axes):
    figures.draw_loss(axes, Curve(np.array([1]), np.array([[0.5]])), NOTHING)
    assert drawn(axes) == {"training loss": [[1, 0.5]]}
    assert axes.get_ylabel() == "training loss"


@pytest.mark.parametrize("seeds", [1, 2])
def test_achieved_against_target(axes, seeds):
    figures.draw_returns(axes, 100, make_evaluation(seeds), DATASET)
    means = [1.0, 4.0] if seeds == 1 else [4.0, 7.0]
    # In the order of the targets, whatever that of the evaluation.
    assert drawn(axes)["their mean"] == [[200, means[1]], [800, means[0]]]
    scattered = axes.collections[0].get_offsets().tolist()
    every = make_evaluation(seeds).returns.reshape(-1, 2, 3)
    wanted = [[t, r] for k, t in enumerate((800, 200)) for r in every[:, k].ravel()]
    assert sorted(scattered) == sorted(wanted)
    assert drawn(axes)["data, best"][0][1] == 900
    assert drawn(axes)["data, mean"][0][1] == 500
    assert len(axes.figure.axes) == 1  # data of before has no histogram


def test_the_datas_returns_are_behind(axes):
    dataset = DATASET | {"return_histogram": HISTOGRAM}
    figures.draw_returns(axes, 100, make_evaluation(), dataset)
    front, behind = axes.figure.axes
    (bars,) = behind.patches
    values, edges, _ = bars.get_data()
    assert (values.tolist(), edges.tolist()) == ([4, 0, 8], HISTOGRAM["edges"])
    assert behind.get_zorder() < front.get_zorder()
    assert front.get_xlim() == behind.get_xlim()
    assert front.get_xlim()[0] <= 100
    assert front.get_xlim()[1] >= 1000
    assert "data, returns" in front.get_legend_handles_labels()[1]


def test_curves_are_joined_where_all_were_measured():
    first = Curve(np.array([0, 5, 10]), np.array([[1.0, 2.0, 3.0]]))
    second = Curve(np.array([0, 10, 20]), np.array([[4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]))
    curve = joined([first, second])
    np.testing.assert_array_equal(curve.steps, [0, 10])
    np.testing.assert_array_equal(curve.values, [[1, 3], [4, 5], [7, 8]])
    alone = joined([first])
    np.testing.assert_array_equal(alone.values, first.values)
