"""The command on runs as they are trained, and the page that comes of it."""

import json
import re

import pytest
from command import refusal, run
from test_train import changed

from dt_jax.training.train import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("real")


@pytest.fixture
def runs(folder, small_config):
    """One, two seeds of it, one without an environment, and one that is none."""
    if not folder.joinpath("none").exists():
        train(small_config, folder / "one")
        two = changed(small_config, train_seed=20, num_seeds=2)
        train(two, folder / "two")
        alone = changed(small_config, env_name=None, holdout_fraction=0.3)
        train(alone, folder / "without")
        (folder / "none").mkdir()
    return [folder / name for name in ("one", "two", "without", "none")]


def test_real_runs(runs, tmp_path):
    command = ["-m", "dt_jax", "report", *runs, f"--out={tmp_path / 'out'}"]
    status, out, err = run(*command)
    assert status == 0, err
    (line,) = err.splitlines()
    assert line.startswith("python -m dt_jax report: warning: no ")
    assert line.endswith("none the folder of a run? (left out)")
    assert f"report {tmp_path / 'out/index.html'}" in out
    text = (tmp_path / "out/report.md").read_text()
    assert "# Report on 2 experiments: 3 runs, 4 seeds" in text
    assert "3 seeds (10, 20, 21), 8 of 8 updates" in text
    assert "own data" in text
    held_out = text[text.index("squared error of held-out actions") :]
    rows = [json.loads(x) for x in (runs[2] / "metrics.jsonl").read_text().splitlines()]
    errors = [row["eval/holdout_action_mse"] for row in rows if "eval/seconds" in row]
    for what, error in ("last", errors[-1]), ("least", min(errors)):
        assert re.search(rf"\| {what} +\| +{error:.4g} \|", held_out)
    timing = text[text.index("## Timing") :]
    assert timing.count("Python 3.") == 3
    assert "| - " not in timing  # evaluations are timed


def test_nothing_to_report_on(tmp_path):
    status, _, err = run(
        "-m", "dt_jax", "report", tmp_path, f"--out={tmp_path / 'out'}"
    )
    assert status == 2
    assert len(err.splitlines()) == 2
    assert "error: no run to report on: name the folders of runs" in err
    assert not (tmp_path / "out").exists()
    assert "arguments are required: runs" in refusal("-m", "dt_jax", "report")
