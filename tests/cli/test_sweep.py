"""Sweeps of small training runs."""

import os
import signal
import time

import pytest
from command import ROOT, start

from dt_jax.cli import sweep
from dt_jax.runs.checkpoint import find_checkpoints
from dt_jax.runs.metrics import read_metrics
from dt_jax.training import loggers
from dt_jax.training.sweep import make_queue
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import locked

CONFIG = """
from dt_jax.config import default_config

def get_config(data):
    return default_config(
        env_name="hopper-demo",
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
def run_sweep(monkeypatch, capsys):
    """A function from arguments to the printed lines and the exit status."""
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        status = 0
        try:
            sweep.main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            status = exit_.code
        return capsys.readouterr().out.splitlines(), status

    return run


@pytest.mark.slow
def test_failed_run_does_not_stop_the_others(config, run_sweep, tmp_path):
    runs = tmp_path / "runs"
    lines, status = run_sweep(f"{config}:bad", f"{config}:good", f"--workdir={runs}")
    assert status == 1
    started, failed, _, done, empty, *table = lines
    log = runs / "mine-bad" / "log.txt"
    assert started == f"[1/2] mine-bad: started, output in {log}"
    assert failed.startswith("[1/2] mine-bad: failed, status 2: python -m dt_jax train")
    assert f"{tmp_path}/bad.hdf5" in failed
    assert failed.partition("status 2: ")[2] in log.read_text()
    assert done.startswith("[2/2] mine-good: done in ")
    assert empty == ""
    assert [line.split()[:2] for line in table] == [
        ["mine-bad", "failed,"],
        ["mine-good", "done"],
    ]
    assert read_metrics(runs / "mine-good" / "metrics.jsonl")[-1]["step"] == 4

    # Further sweeps over the same folder.
    again = [f"{config}:good", f"--workdir={runs}"]
    with locked(runs / "mine-good"):  # another process trains it
        lines, status = run_sweep(*again)
    assert status == 0
    assert lines[0].startswith(f"[1/1] mine-good: skipped: {runs}/mine-good is in use")
    lines = ["[1/1] mine-good: already complete", "", "mine-good  already complete"]
    assert run_sweep(*again) == (lines, 0)

    (runs / "mine-last").write_text("not a folder")
    lines, status = run_sweep(f"{config}:last", *again)
    assert status == 1
    assert lines[0].startswith(f"[1/2] mine-last: failed: {runs}/mine-last ")
    assert lines[1] == "[2/2] mine-good: already complete"

    log = runs / "mine-good" / "log.txt"
    before = log.read_text()
    lines, status = run_sweep(*again, "--config.batch_size=8")
    assert status == 1
    assert "batch_size 4 -> 8" in lines[1]
    assert log.read_text().startswith(before)


@pytest.mark.slow
def test_signal_is_forwarded_and_the_same_command_resumes(
    config, run_sweep, tmp_path, hopper_file
):
    workdir = tmp_path / "runs/mine-good"
    command = [f"{config}:bad", f"{config}:good", f"--workdir={tmp_path}/runs"]
    long = [*command, "--config.update_steps=1e6", f"{config}:last"]
    process = start("-m", "dt_jax", "sweep", *long)
    while not read_metrics(workdir / "metrics.jsonl"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    number = int((workdir / ".lock").read_text().split()[0])
    assert os.getpgid(number) == number  # a terminal's Ctrl-C does not reach it too
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 138
    (line,) = err.splitlines()
    assert line.startswith(
        "python -m dt_jax sweep: interrupted by SIGUSR1 in mine-good (python -m "
        "dt_jax train: interrupted by SIGUSR1 after "
    )
    assert "mine-last" not in out
    saved = find_checkpoints(workdir / "checkpoints")[-1].step

    (tmp_path / "bad.hdf5").unlink()
    (tmp_path / "bad.hdf5").symlink_to(hopper_file)
    lines, status = run_sweep(*command, f"--config.update_steps={saved + 1}")
    assert status == 0
    assert lines[1].startswith("[1/2] mine-bad: done in ")
    assert lines[3].startswith("[2/2] mine-good: done in ")
    assert f"the checkpoint at step {saved}\n" in (workdir / "log.txt").read_text()
    assert read_metrics(workdir / "metrics.jsonl")[-1]["step"] == saved + 1


@pytest.mark.slow
def test_a_run_ends_with_a_killed_sweep_and_the_same_command_resumes(
    config, run_sweep, tmp_path
):
    workdir = tmp_path / "runs/mine-good"
    command = [f"{config}:good", f"--workdir={tmp_path}/runs"]
    process = start("-m", "dt_jax", "sweep", *command, "--config.update_steps=1e6")
    while not find_checkpoints(workdir / "checkpoints"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.kill()
    process.communicate()
    # At once, as by a script that restarts it.
    process = start("-m", "dt_jax", "sweep", *command, "--config.update_steps=1e6")
    line = process.stdout.readline()
    assert line.startswith("[1/1] mine-good: started, output in")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    saved = find_checkpoints(workdir / "checkpoints")[-1].step
    lines, status = run_sweep(*command, f"--config.update_steps={saved + 1}")
    assert status == 0
    assert lines[1].startswith("[1/1] mine-good: done in ")


def test_family_and_all_are_expanded(run_sweep):
    flags = "--num_seeds=2", "--config.deterministic"
    assert run_sweep("pen", *flags, "quickstart", "--list") == (
        ["pen:cloned", "pen:expert", "pen:human", "quickstart"],
        0,
    )
    lines, _ = run_sweep("all", "--list")
    assert len(lines) == 30
    assert {"antmaze:umaze-diverse", "hopper:medium-replay"} < {*lines}


def test_runs_of_different_agents_have_different_folders(run_sweep, tmp_path):
    references = "hopper:medium", "iql/hopper:medium", "bc/hopper:medium"
    queue = make_queue(references, tmp_path, ())
    assert [run.name for run in queue] == [
        "hopper-medium",
        "iql-hopper-medium",
        "bc-hopper-medium",
    ]


def test_missing_package_is_an_error_before_the_first_run(
    run_sweep, tmp_path, monkeypatch
):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    workdir = f"--workdir={tmp_path / 'runs'}"
    with pytest.raises(UserError, match=r"pip install 'dt_jax\[wandb\]'"):
        run_sweep("pen", "--config.loggers=wandb", workdir)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("hoper:medium", "no family 'hoper'; nearest: hopper"),
        ("hopper:medum", "^hopper:medum: .*unknown dataset 'medum'; nearest: medium"),
        ("hopper --config.batchsize=3", "nearest: batch_size"),
        ("hopper --config.batch_size 3", "batch_size lacks its value"),
        ("hopper --num_seeds=0", "num_seeds=0: expected an integer from 1"),
        ("hopper --num_seed=3", "unrecognized arguments: --num_seed=3; see --help"),
        ("hopper hopper:medium", "two runs have the same folder hopper-medium"),
        ("nowhere.py", "no config file 'nowhere.py'"),
        ("", "arguments are required: run"),
    ],
)
def test_user_error_is_reported_before_the_first_run(run_sweep, arguments, expected):
    with pytest.raises(UserError, match=expected):
        run_sweep(*arguments.split())
