import matplotlib.image
import numpy as np
import pytest
from run_folders import DATASET

from dt_jax.analysis import summary
from dt_jax.config.load import default_config
from dt_jax.runs.evaluations import Evaluation
from dt_jax.runs.folder import RunFolder
from dt_jax.runs.metrics import MetricsLog


def make_run(folder, metrics, target=None):
    """Return a run with two rows of metrics and perhaps an evaluation at a target."""
    if target is not None:
        returns = np.array([[100.0, 300.0]], np.float32)
        evaluation = Evaluation(
            target_returns=np.array([target]),
            seeds=np.array([1, 2]),
            returns=returns,
            lengths=np.ones_like(returns),
        )
        evaluation.save(folder / "eval" / "200.npz")
        metrics = [*metrics, *evaluation.metrics()]
    with MetricsLog(folder / "metrics.jsonl", up_to_step=-1) as log:
        log.write(100, dict.fromkeys(metrics, 0.5))
        log.write(200, dict.fromkeys(metrics, 0.7))
    return RunFolder(folder, default_config(), DATASET, {})


@pytest.mark.parametrize(
    ("metrics", "target", "num_panels"),
    [
        (["train_loss"], None, 1),
        (["train_loss"], 200.0, 3),  # learning curve, returns and loss
        (["eval/holdout_action_mse"], 200.0, 3),
        (["critic_loss", "entropy"], 200.0, 2),
        (["critic_loss", "entropy"], np.nan, 1),  # an agent without target returns
        (["critic_loss", "entropy"], None, 0),
        (["train_loss", "dynamics_loss", "baseline_dynamics_loss"], None, 2),
        (["train_loss", "dynamics_loss"], None, 1),
    ],
)
def test_picture_has_a_panel_for_each_kind_of_result(
    tmp_path, metrics, target, num_panels
):
    summary.draw(make_run(tmp_path, metrics, target))
    picture = matplotlib.image.imread(tmp_path / "summary.png")
    assert picture.shape[1] == max(1, num_panels) * 600
    assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 50  # it is not blank


def test_last_results_are_printed(tmp_path, capsys):
    summary.show(make_run(tmp_path, ["eval/holdout_action_mse"], 200.0))
    out = capsys.readouterr().out
    assert "after 200 updates" in out
    assert "200.0 ± 100.0" in out
    assert "held-out action MSE 0.7, lowest 0.5 after 100 updates" in out
    assert str(tmp_path / "summary.png") in out
