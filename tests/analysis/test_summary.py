from dataclasses import replace

import matplotlib.image
import numpy as np
from rich.console import Console

from dt_jax.analysis import summary
from dt_jax.config import default_config
from dt_jax.runs.evaluations import Evaluation
from dt_jax.runs.folder import recorded
from dt_jax.runs.metrics import MetricsLog

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
    # 100 and 300: deviation 141.4, divided by √2
    assert "200.0 ± 100.0" in shown
    assert "20.0 ± 10.0" in shown
    assert "810.000 ± 10.000" in shown  # a small target is told with more digits


def test_table_without_scores():
    shown = text(
        summary.evaluation_table(replace(make_evaluation(), normalized_scores=None), "")
    )
    assert "200.0 ± 100.0" in shown
    assert "score" not in shown
    assert "20.0 ± 10.0" not in shown


def test_foreign_data_is_named_beside_the_score():
    def label(data_path, env_name, scored_as):
        config = {"data_path": data_path, "env_name": env_name}
        return summary.data_label(config, DATASET, scored_as)

    hopper, demo = "hopper-medium-v2", "hopper-demo"
    assert label("a/mine.hdf5", hopper, hopper) == f"mine.hdf5 (scored as {hopper})"
    assert label("a/mine.hdf5", hopper, None) == "mine.hdf5"
    assert label("a/mine.hdf5", None, hopper) == f"mine.hdf5 (scored as {hopper})"
    assert label(None, demo, demo) == label(None, demo, None) == demo
    assert label(None, demo, hopper) == f"{demo} (scored as {hopper})"
    minari = "minari:mujoco/hopper/medium-v0"
    assert label(None, minari, minari) == "mine.hdf5"  # the source, with its note
    assert label(None, minari, hopper) == f"mine.hdf5 (scored as {hopper})"


def test_picture_with_and_without_an_evaluation(tmp_path):
    sizes = []
    for with_evaluation in (False, True):
        if with_evaluation:
            make_evaluation().save(tmp_path / "eval" / "200.npz")
        with MetricsLog(tmp_path / "metrics.jsonl", up_to_step=-1) as log:
            log.write(100, {"train_loss": 0.5})
            log.write(200, {"train_loss": 0.1})
        run = recorded(tmp_path, default_config(), DATASET)
        summary.draw(run, "mine.hdf5")
        picture = matplotlib.image.imread(tmp_path / "summary.png")
        assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 50  # something is drawn
        sizes.append(picture.shape[1])
    assert sizes[1] == 2 * sizes[0]
