import matplotlib.image
import numpy as np
import pytest
from run_folders import DATASET

from configs import default
from dt_jax.analysis import summary
from dt_jax.runs.evaluations import Evaluation
from dt_jax.runs.folder import recorded
from dt_jax.runs.metrics import MetricsLog


def make_run(folder, metrics, with_evaluation):
    if with_evaluation:
        returns = np.array([[100.0, 300.0]], np.float32)
        evaluation = Evaluation(
            target_returns=np.array([200.0]),
            seeds=np.array([1, 2]),
            returns=returns,
            lengths=np.ones_like(returns),
        )
        evaluation.save(folder / "eval" / "200.npz")
    with MetricsLog(folder / "metrics.jsonl", up_to_step=-1) as log:
        log.write(100, dict.fromkeys(metrics, 0.5))
        log.write(200, dict.fromkeys(metrics, 0.7))
    return recorded(folder, default.get_config(), DATASET)


@pytest.mark.parametrize(
    ("metrics", "with_evaluation", "panels"),
    [
        (["train_loss"], False, 1),
        (["train_loss"], True, 2),
        (["eval/holdout_action_mse"], True, 2),
        (["critic_loss", "entropy"], True, 1),
        (["critic_loss", "entropy"], False, 1),
    ],
)
def test_picture_has_a_panel_for_each_kind_of_result(
    tmp_path, metrics, with_evaluation, panels
):
    summary.draw(make_run(tmp_path, metrics, with_evaluation))
    picture = matplotlib.image.imread(tmp_path / "summary.png")
    assert picture.shape[1] == panels * 600
    assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 50  # it is not blank


def test_last_results_are_printed(tmp_path, capsys):
    summary.show(make_run(tmp_path, ["eval/holdout_action_mse"], True))
    out = capsys.readouterr().out
    assert "after 200 updates" in out
    assert "200.0 ± 100.0" in out
    assert "held-out actions 0.7, lowest 0.5 after 100 updates" in out
    assert str(tmp_path / "summary.png") in out
