import matplotlib.image
import numpy as np
from rich.console import Console

from dt_jax import summary
from dt_jax.evaluation import Evaluation
from dt_jax.metrics import MetricsLog

DATASET = {"source": "mine.hdf5", "return_mean": 500.0, "return_best": 900.0}


def make_evaluation():
    returns = np.array([[100.0, 300.0], [800.0, 820.0]], np.float32)
    return Evaluation(
        target_returns=np.array([200.0, 0.5]),
        seeds=np.array([1, 2]),
        returns=returns,
        lengths=np.array([[10, 20], [30, 40]]),
        normalized_scores=returns / 10.0,
    )


def text(table):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_table_gives_mean_and_standard_error():
    shown = text(summary.evaluation_table(make_evaluation(), "mine.hdf5"))
    assert "mine.hdf5" in shown
    # std 100 over 2 episodes -> 70.7
    assert "200.0 ± 70.7" in shown
    assert "20.0 ± 7.1" in shown
    assert "810.000 ± 7.071" in shown  # a small target is told with more digits


def test_foreign_data_is_named_beside_the_score():
    def label(**changes):
        config = {"data_path": "a/mine.hdf5", "env_name": "hopper-demo"}
        return summary.data_label(config | {"eval_episodes": 5} | changes, DATASET)

    assert label() == "mine.hdf5 (scored as hopper-demo)"
    assert label(eval_episodes=0) == "mine.hdf5"
    assert label(env_name=None) == "mine.hdf5"
    assert label(data_path=None) == "hopper-demo"


def test_the_newest_evaluation_is_shown(tmp_path):
    assert summary.last_evaluation(tmp_path) is None
    for step in (0, 100, 20):
        make_evaluation().save(tmp_path / "eval" / f"{step}.npz")
    step, evaluation = summary.last_evaluation(tmp_path)
    assert step == 100
    np.testing.assert_array_equal(evaluation.returns, make_evaluation().returns)


def test_picture_with_and_without_an_evaluation(tmp_path):
    sizes = []
    for with_evaluation in (False, True):
        if with_evaluation:
            make_evaluation().save(tmp_path / "eval" / "200.npz")
        with MetricsLog(tmp_path / "metrics.jsonl", up_to_step=-1) as log:
            log.write(100, {"train_loss": 0.5})
            log.write(200, {"train_loss": 0.1})
        summary.draw(tmp_path, "mine.hdf5", DATASET)
        picture = matplotlib.image.imread(tmp_path / "summary.png")
        assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 50  # something is drawn
        sizes.append(picture.shape[1])
    assert sizes[1] == 2 * sizes[0]
