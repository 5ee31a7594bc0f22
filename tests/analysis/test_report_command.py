"""The report command on runs that were trained."""

import json
import re

import pytest
from command import run
from helpers import changed

from dt_jax.cli.report import main as report
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError


@pytest.mark.slow
def test_report_on_trained_runs(small_config, tmp_path):
    """One seed, two further seeds, a run without environment, and an empty folder."""
    runs = [tmp_path / name for name in ("one", "two", "without", "empty")]
    train(small_config, runs[0])
    train(changed(small_config, train_seed=20, num_seeds=2), runs[1])
    train(changed(small_config, env_name=None, holdout_fraction=0.3), runs[2])
    runs[3].mkdir()
    command = ["-m", "dt_jax", "report", *runs, f"--out={tmp_path / 'out'}"]
    status, out, err = run(*command)
    assert status == 0, err
    (line,) = err.splitlines()
    assert line.startswith("python -m dt_jax report: warning: ")
    assert f"{runs[-1]}/checkpoints" in line
    assert line.endswith(" (skipped)")
    assert f"report {tmp_path / 'out/index.html'}" in out
    text = (tmp_path / "out/report.md").read_text()
    assert "# Report on 2 experiments: 3 runs, 4 seeds" in text
    assert "3 seeds (10, 20, 21), 8 of 8 updates" in text
    assert "own data" in text
    held_out = text[text.index("held-out action MSE") :]
    rows = [json.loads(x) for x in (runs[2] / "metrics.jsonl").read_text().splitlines()]
    errors = [row["eval/holdout_action_mse"] for row in rows if "eval/seconds" in row]
    for name, error in ("last", errors[-1]), ("lowest", min(errors)):
        assert re.search(rf"\| {name} \| {error:.4g} \|", held_out)
    timing = text[text.index("## Timing") :]
    assert timing.count("python 3.") == 3
    assert "| - " not in timing  # evaluations are timed


def test_folders_without_runs_are_an_error(tmp_path):
    status, _, err = run(
        "-m", "dt_jax", "report", tmp_path, f"--out={tmp_path / 'out'}"
    )
    assert status == 2
    assert len(err.splitlines()) == 2
    assert "error: no runs to report on: none of the given folders" in err
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="arguments are required: runs"):
        report([])
