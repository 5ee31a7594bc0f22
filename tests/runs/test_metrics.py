import io
import json

import pytest
from rich.console import Console

from dt_jax.runs import metrics
from dt_jax.runs.metrics import MetricsLog, read_metrics
from dt_jax.training.progress import ProgressReport
from dt_jax.utils.errors import UserError


def test_rows_are_json_lines_in_order(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, up_to_step=-1) as log:
        log.write(0, {"eval/5.0_return_mean": 1.5})
        assert len(path.read_text().splitlines()) == 1  # there at once
        log.write(100, {"train_loss": 0.25})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [
        {"step": 0, "eval/5.0_return_mean": 1.5},
        {"step": 100, "train_loss": 0.25},
    ]
    assert read_metrics(path) == rows


def test_going_on_drops_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, up_to_step=-1) as log:
        for step in (0, 100, 200, 300):
            log.write(step, {"train_loss": 1.0})
    path.write_text(path.read_text() + '{"step": 400, "train_l')  # killed there
    assert [row["step"] for row in read_metrics(path)] == [0, 100, 200, 300]
    with MetricsLog(path, up_to_step=200) as log:
        log.write(300, {"train_loss": 2.0})
    rows = read_metrics(path)
    assert [row["step"] for row in rows] == [0, 100, 200, 300]
    assert rows[-1]["train_loss"] == 2.0


@pytest.mark.parametrize(
    "line", ["garbage", '{"stp": 2}', "[1]", "3", "\xbc", '{"step": 1e400}']
)
def test_a_line_that_is_no_row_is_told(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n', encoding="latin1")
    with pytest.raises(UserError, match="line 2: not a row of metrics"):
        read_metrics(path)


def test_plain_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(metrics, "_SECONDS_BETWEEN_LINES", 0.0)
    with ProgressReport(total=200, done=0, shown=True) as report:
        report.update(0, {"eval/5.0_return_mean": 1.5})  # nothing of training yet
        report.update(100, {"train_loss": 0.5, "steps_per_second": 50.0})
        report.say("step 100  target 5: return 2.0")
    assert capsys.readouterr().err.splitlines() == [
        "step 100/200  loss 0.5000  50 updates/s  about 2 s of updates left",
        "step 100  target 5: return 2.0",
    ]


def test_nothing_where_another_process_tells(capsys, tmp_path):
    with (
        ProgressReport(total=200, done=0, shown=False) as report,
        MetricsLog(None, up_to_step=0) as log,
    ):
        report.say("step 100  target 5: return 2.0")
        log.write(100, {"train_loss": 0.5})
    assert capsys.readouterr().err == ""


@pytest.fixture
def terminal(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(metrics, "Console", lambda **_: console)
    return screen


def test_a_bar_on_a_terminal(terminal):
    with ProgressReport(total=200, done=50, shown=True) as report:
        report.update(100, {"train_loss": 0.5, "steps_per_second": 50.0})
        report.say("step 100  target 5: return 2.0")
    shown = terminal.getvalue()
    for part in ("100/200", "loss 0.5000", "50 updates/s", "target 5: return 2.0"):
        assert part in shown
