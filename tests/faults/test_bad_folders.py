"""Folders that are in the way, closed, full or oddly named, and closed streams."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
from command import ROOT, refusal, run
from smallest import launch

from dt_jax.runs.checkpoint import find_checkpoints
from dt_jax.runs.metrics import read_metrics

EVALUATE = ["-m", "dt_jax", "evaluate"]
COLLECT = ["-m", "dt_jax", "collect", "hopper-demo", "--steps=2000"]


@contextmanager
def mounted(folder, *options):
    """Have a file system in memory at `folder`; skip where that may not be."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("file systems can't be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def closed(tmp_path):
    """Return a folder that may not be written, also not by root."""
    with mounted(tmp_path / "closed", "ro"):
        yield tmp_path / "closed"


@pytest.fixture
def small(tmp_path):
    """Return a folder on a disk of a megabyte."""
    with mounted(tmp_path / "small", "size=1m"):
        yield tmp_path / "small"


def fill(folder, left):
    """Leave so many bytes of a disk."""
    with (folder / "filling").open("wb") as file:
        file.write(bytes(shutil.disk_usage(folder).free - left))


def test_a_workdir_that_is_a_file(tmp_path, hopper_file):
    (tmp_path / "run").write_text("in the way")
    for workdir in (tmp_path / "run", tmp_path / "run" / "deeper"):
        line = refusal(*launch(hopper_file, workdir))
        assert f"{tmp_path / 'run'} is not a folder: choose another --workdir" in line
    assert (tmp_path / "run").read_text() == "in the way"


def test_a_workdir_that_is_a_loop_of_links(tmp_path, hopper_file):
    (tmp_path / "run").symlink_to(tmp_path / "back")
    (tmp_path / "back").symlink_to(tmp_path / "run")
    for workdir in (tmp_path / "run", tmp_path / "run" / "deeper"):
        line = refusal(*launch(hopper_file, workdir))
        assert str(tmp_path / "run") in line
        assert "another" in line
    assert len(list(tmp_path.iterdir())) == 2
    line = refusal(*EVALUATE, tmp_path / "run")
    assert "the folder of a run?" in line


def test_a_workdir_whose_name_is_too_long(tmp_path, hopper_file):
    line = refusal(*launch(hopper_file, tmp_path / ("x" * 300)))
    assert "File name too long" in line
    assert not list(tmp_path.iterdir())


def test_a_workdir_that_may_not_be_written(closed, hopper_file):
    line = refusal(*launch(hopper_file, closed / "run"))
    assert f"Read-only file system: {closed}" in line
    assert "name a place that may be written" in line
    assert not list(closed.iterdir())


def test_collecting_to_where_nothing_may_be_written(closed):
    """It is told before the work."""
    status, out, err = run(*COLLECT, f"--out={closed / 'hopper.hdf5'}")
    assert status == 2
    assert "Read-only file system" in err
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize("left", [0, 6_000, 30_000, 200_000])
def test_a_disk_that_fills_up_in_a_run(small, hopper_file, record_property, left):
    """What is on it is whole; with room the same command goes on to the end."""
    fill(small, left)
    command = launch(hopper_file, small / "run", "--config.keep_checkpoints=5")
    steps = ["--config.update_steps=60", "--config.eval_every=4"]
    status, _, err = run(*command, *steps)
    assert status == 2, err
    last = err.splitlines()[-1]
    assert "No space left on device" in last or "no space left on the disk" in last
    assert "Traceback" not in err
    assert not [path for path in small.rglob("*") if ".tmp" in path.name]
    for path in (small / "run").glob("*.json"):
        json.loads(path.read_text())
    read_metrics(small / "run" / "metrics.jsonl")
    reached = find_checkpoints(small / "run" / "checkpoints")
    record_property(
        f"disk full with {left:,} bytes left",
        f"{len(reached)} whole checkpoints, one line",
    )
    (small / "filling").unlink()
    status, _, err = run(*command)
    assert status == 0, err
    assert find_checkpoints(small / "run" / "checkpoints")[-1].step >= 2


def test_a_disk_that_is_too_small_for_what_is_collected(small):
    fill(small, 20_000)
    status, _, err = run(*COLLECT, f"--out={small / 'hopper.hdf5'}")
    assert status == 2
    assert "free there: make room" in err
    assert err.count("\n") == 1
    assert [path.name for path in small.iterdir()] == ["filling"]


def test_odd_names_work(tmp_path, hopper_file):
    """Spaces, other scripts, braces and percent signs."""
    for name in ("a run", "läuft 走る", "100%{x}"):
        workdir = tmp_path / name / "run"
        status, out, err = run(*launch(hopper_file, workdir))
        assert status == 0, err
        assert (workdir / "summary.png").exists()
        status, out, err = run(*EVALUATE, workdir)
        assert status == 0, err
        status, out, err = run(*launch(hopper_file, workdir))
        assert "this run is complete" in " ".join(out.split()), err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("[run]", "a run's folder may have no [ ] in its path"),
        ("run*", "a run's folder may have no * in its path"),
        (os.fsdecode(b"r\xff"), "is no path in UTF-8"),
    ],
)
def test_a_workdir_that_checkpoints_could_not_be_read_from(
    tmp_path, hopper_file, name, words
):
    line = refusal(*launch(hopper_file, tmp_path / name / "run"))
    assert words in line
    assert "choose another --workdir" in line
    assert not list(tmp_path.iterdir())


def test_nobody_listens():
    """With stdout closed, by `>&-`, there is no traceback."""
    command = f'"{sys.executable}" -m dt_jax.data list hopper >&-'
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
