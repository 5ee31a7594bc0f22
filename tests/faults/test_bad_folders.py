"""Folders that are files, read-only, full or oddly named, and closed streams."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from command import ROOT, launch_command, refusal, run
from helpers import steps_of

from dt_jax.runs.metrics import read_metrics

EVALUATE = ["-m", "dt_jax", "evaluate"]
COLLECT = ["-m", "dt_jax", "collect", "hopper-demo", "--steps=2000"]


@pytest.fixture
def read_only(mount):
    """Return a folder that not even root can write."""
    with mount("read_only", "ro") as folder:
        yield folder


@pytest.fixture
def small_disk(mount):
    """Return the folder of a file system of one megabyte."""
    with mount("small", "size=1m") as folder:
        yield folder


def fill(folder, free):
    """Fill a file system up to so many free bytes."""
    with (folder / "filling").open("wb") as file:
        file.write(bytes(shutil.disk_usage(folder).free - free))


def test_workdir_that_is_a_circular_link(tmp_path, hopper_file):
    (tmp_path / "run").symlink_to(tmp_path / "back")
    (tmp_path / "back").symlink_to(tmp_path / "run")
    for workdir in (tmp_path / "run", tmp_path / "run" / "deeper"):
        line = refusal(*launch_command(hopper_file, workdir))
        assert str(tmp_path / "run") in line
        assert "another" in line
    assert len(list(tmp_path.iterdir())) == 2
    line = refusal(*EVALUATE, tmp_path / "run")
    assert "a run's folder?" in line


def test_workdir_that_cannot_be_written(read_only, hopper_file):
    line = refusal(*launch_command(hopper_file, read_only / "run"))
    assert f"Read-only file system: {read_only}" in line
    assert "choose a path on a writable file system" in line
    assert not list(read_only.iterdir())


def test_output_that_cannot_be_written_is_refused_before_collecting(read_only):
    status, out, err = run(*COLLECT, f"--out={read_only / 'hopper.hdf5'}")
    assert status == 2
    assert "Read-only file system" in err
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize("free", [0, 6_000, 30_000, 200_000])
def test_disk_that_fills_up_during_a_run(
    small_disk, hopper_file, record_property, free
):
    """Its files stay valid, and the same command resumes once there is space."""
    fill(small_disk, free)
    workdir = small_disk / "run"
    command = launch_command(hopper_file, workdir, "--config.keep_checkpoints=5")
    longer = ["--config.update_steps=60", "--config.eval_every=4"]
    status, _, err = run(*command, *longer)
    assert status == 2, err
    last = err.splitlines()[-1]
    assert "No space left on device" in last or "no space left on the disk" in last
    assert "Traceback" not in err
    assert not [path for path in small_disk.rglob("*") if ".tmp" in path.name]
    for path in workdir.glob("*.json"):
        json.loads(path.read_text())
    read_metrics(workdir / "metrics.jsonl")
    record_property(
        f"disk full with {free:,} bytes left",
        f"{len(steps_of(workdir))} valid checkpoints, one line",
    )
    (small_disk / "filling").unlink()
    status, _, err = run(*command)
    assert status == 0, err
    assert steps_of(workdir)[-1] >= 2


def test_disk_that_is_too_small_for_a_dataset(small_disk):
    fill(small_disk, 20_000)
    status, _, err = run(*COLLECT, f"--out={small_disk / 'hopper.hdf5'}")
    assert status == 2
    assert err.splitlines()[-1] == (
        "python -m dt_jax collect: error: No space left on device; free some disk "
        "space and run the same command again"
    )
    assert [path.name for path in small_disk.iterdir()] == ["filling"]


@pytest.mark.parametrize("name", ["a run", "läuft 走る", "100%{x}"])
def test_unusual_names_work(tmp_path, hopper_file, name):
    workdir = tmp_path / name / "run"
    status, out, err = run(*launch_command(hopper_file, workdir))
    assert status == 0, err
    assert (workdir / "summary.png").exists()
    status, out, err = run(*EVALUATE, workdir)
    assert status == 0, err
    status, out, err = run(*launch_command(hopper_file, workdir))
    assert "this run is complete" in " ".join(out.split()), err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("[run]", "the path of a run's folder must not contain [ ]"),
        ("run*", "the path of a run's folder must not contain *"),
        (os.fsdecode(b"r\xff"), "is not valid UTF-8"),
        ("x" * 300, "File name too long"),
    ],
)
def test_names_that_cannot_be_used_are_refused(tmp_path, hopper_file, name, words):
    line = refusal(*launch_command(hopper_file, tmp_path / name / "run"))
    assert words in line
    assert not list(tmp_path.iterdir())


def test_closed_stdout_is_not_an_error():
    """As by `>&-` in a shell."""
    command = f'"{sys.executable}" -m dt_jax data list hopper >&-'
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
