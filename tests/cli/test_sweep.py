"""Queues of real runs, which are small."""

import os
import signal
import sys
import time

import pytest
from command import ROOT, start

from dt_jax.cli import sweep
from dt_jax.runs.checkpoint import find
from dt_jax.runs.metrics import read_metrics
from dt_jax.utils.errors import UserError
from dt_jax.utils.lock import alone_in

CONFIG = """
from configs import default

def get_config(data):
    return default.for_dataset(
        "hopper-demo",
        data_path=f"{folder}/{{data}}.hdf5",
        embedding_dim=8,
        num_layers=1,
        seq_len=3,
        batch_size=4,
        update_steps=4,
        eval_episodes=0,
        holdout_fraction=0.0,
        log_every=2,
        checkpoint_every=2,
    )
"""


@pytest.fixture
def config(tmp_path, hopper_file):
    """A config file whose datasets are the files beside it: good.hdf5, bad.hdf5."""
    (tmp_path / "good.hdf5").symlink_to(hopper_file)
    (tmp_path / "bad.hdf5").write_text("notes")
    file = tmp_path / "mine.py"
    file.write_text(CONFIG.format(folder=tmp_path))
    return file


@pytest.fixture
def queue(monkeypatch, capsys):
    """Return what a command line prints, line by line, and its exit status."""
    monkeypatch.chdir(ROOT)

    def make(*arguments):
        monkeypatch.setattr(sys, "argv", ["sweep", *map(str, arguments)])
        status = 0
        try:
            sweep.main()
        except SystemExit as leaving:
            status = leaving.code
        return capsys.readouterr().out.splitlines(), status

    return make


def test_one_that_fails_stops_no_other(config, queue, tmp_path):
    runs = tmp_path / "runs"
    lines, status = queue(f"{config}:bad", f"{config}:good", f"--workdir={runs}")
    assert status == 1
    begins, failed, _, done, nothing, *table = lines
    log = runs / "mine-bad" / "log.txt"
    assert begins == f"[1/2] mine-bad: begins, its output is in {log}"
    assert failed.startswith("[1/2] mine-bad: failed, status 2: python -m dt_jax train")
    why = f"{tmp_path}/bad.hdf5: corrupt, or not an HDF5 or .npz file"
    assert why in failed
    assert why in log.read_text()
    assert done.startswith("[2/2] mine-good: done in ")
    assert nothing == ""
    assert [line.split()[:2] for line in table] == [
        ["mine-bad", "failed,"],
        ["mine-good", "done"],
    ]
    assert read_metrics(runs / "mine-good" / "metrics.jsonl")[-1]["step"] == 4

    again = [f"{config}:good", f"--workdir={runs}"]
    with alone_in(runs / "mine-good"):  # as another queue's run
        lines, status = queue(*again)
    assert status == 0
    assert lines[0].startswith(f"[1/1] mine-good: left out: {runs}/mine-good is in use")
    lines = ["[1/1] mine-good: complete already", "", "mine-good  complete already"]
    assert queue(*again) == (lines, 0)

    (runs / "mine-last").write_text("no folder")
    lines, status = queue(f"{config}:last", *again)
    assert status == 1
    assert lines[0] == (
        f"[1/2] mine-last: failed: {runs}/mine-last is no folder: choose another "
        "--workdir"
    )
    assert lines[1] == "[2/2] mine-good: complete already"

    log = runs / "mine-good" / "log.txt"
    before = log.read_text()
    lines, status = queue(*again, "--config.batch_size=8")
    assert status == 1  # another run is there, and that is no complete one
    assert "holds another run (batch_size 4 -> 8)" in lines[1]
    assert log.read_text().startswith(before)


@pytest.mark.slow
def test_a_signal_is_passed_on_and_the_same_command_goes_on(
    config, queue, tmp_path, hopper_file
):
    workdir = tmp_path / "runs/mine-good"
    command = [f"{config}:bad", f"{config}:good", f"--workdir={tmp_path}/runs"]
    process = start(
        *[
            "-m",
            "dt_jax",
            "sweep",
            *command,
            "--config.update_steps=1e6",
            f"{config}:last",
        ]
    )
    while not read_metrics(workdir / "metrics.jsonl"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    number = int((workdir / ".lock").read_text().split()[0])
    assert os.getpgid(number) == number  # a terminal's Ctrl-C is not for it too
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 138
    (line,) = err.splitlines()
    assert line.startswith(
        "python -m dt_jax sweep: interrupted by SIGUSR1 in mine-good (python -m "
        "dt_jax.cli.train: interrupted by SIGUSR1 after "
    )
    assert "mine-last" not in out
    saved = find(workdir / "checkpoints")[-1].step

    (tmp_path / "bad.hdf5").unlink()
    (tmp_path / "bad.hdf5").symlink_to(hopper_file)
    lines, status = queue(*command, f"--config.update_steps={saved + 1}")
    assert status == 0
    assert lines[1].startswith("[1/2] mine-bad: done in ")
    assert lines[3].startswith("[2/2] mine-good: done in ")
    assert (
        f"going on from the checkpoint at step {saved}"
        in (workdir / "log.txt").read_text()
    )


def test_the_runs_of_a_family_and_of_all(queue):
    flags = "--num_seeds=2", "--config.deterministic"
    assert queue("pen", *flags, "quickstart", "--list") == (
        ["pen:cloned", "pen:expert", "pen:human", "quickstart"],
        0,
    )
    lines, _ = queue("all", "--list")
    assert len(lines) == 30
    assert {"antmaze:umaze-diverse", "hopper:medium-replay"} < {*lines}


def test_a_missing_package_is_told_before_the_first_run(queue, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rliable.library", None)
    table = f"--workdir={tmp_path / 'table'}"
    with pytest.raises(UserError, match=r"pip install 'dt_jax\[seeds\]'"):
        queue("pen", "--num_seeds=2", table)
    assert not (tmp_path / "table").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("hoper:medium", "no family 'hoper'; nearest: hopper"),
        ("hopper:medum", "^hopper:medum: .*unknown dataset 'medum'; nearest: medium"),
        ("hopper --config.batchsize=3", "nearest: batch_size"),
        ("hopper --config.batch_size 3", "batch_size lacks its value"),
        ("hopper --num_seeds=0", "num_seeds=0: expected an integer from 1"),
        ("hopper --num_seed=3", "unrecognized arguments: --num_seed=3; see --help"),
        ("hopper hopper:medium", "two runs would share the folder hopper-medium"),
        ("nowhere.py", "no config file 'nowhere.py'"),
        ("", "arguments are required: run"),
    ],
)
def test_a_mistake_is_told_before_the_first_run(queue, arguments, told):
    with pytest.raises(UserError, match=told):
        queue(*arguments.split())
