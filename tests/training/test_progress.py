"""Progress of a run, on a terminal and elsewhere."""

import io

import pytest
from rich.console import Console

from dt_jax.training import progress
from dt_jax.training.progress import ProgressReport


def report_progress(shown=True):
    with ProgressReport("training dt", total=200, done=50, shown=shown) as report:
        report.update(100, loss=0.5, rate=50.0)
        with report.phase("evaluating"):
            report.log("step 100  target 5: return 2.0")


def test_lines_are_printed_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    report_progress()
    assert capsys.readouterr().err.splitlines() == [
        "step 100/200  loss 0.5000  50 updates/s  about 2 s of updates left",
        "step 100  target 5: return 2.0",
    ]


def test_lines_about_updates_are_seconds_apart(capsys):
    report_progress()
    assert capsys.readouterr().err == "step 100  target 5: return 2.0\n"


def test_nothing_is_printed_where_another_process_does(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    report_progress(shown=False)
    assert capsys.readouterr().err == ""


@pytest.fixture
def terminal(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    return screen


def test_a_bar_is_shown_on_a_terminal(terminal):
    report_progress()
    shown = terminal.getvalue()
    for part in (
        "training dt",
        "100/200",
        "loss 0.5000",
        "50 updates/s",
        "target 5: return 2.0",
    ):
        assert part in shown
