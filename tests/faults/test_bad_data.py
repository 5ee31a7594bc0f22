"""Datasets that are cut short, damaged, absurd or of something else altogether.

Each is given to the real launch.py, which must end with status 2 and one line that
says what is wrong and what to do, having written nothing.
"""

import random
import re
import shutil
import subprocess

import numpy as np
import pytest
from bad_files import FILES
from command import run
from refusals import (
    DAMAGED,
    ROWS,
    SUFFIXES,
    WRITERS,
    arrays,
    files_in,
    to_hdf5,
    to_npz,
    with_value,
)


@pytest.mark.parametrize("place", range(20))
@pytest.mark.parametrize("kind", WRITERS)
def test_cut_short(launch, kind, place):
    path = WRITERS[kind](launch.folder / f"data.{kind}", arrays())
    content = path.read_bytes()
    rng = random.Random(place)
    kept = [0, 1, 4, 8, len(content) - 1][place : place + 1] or [
        rng.randrange(9, len(content) - 1)
    ]
    path.write_bytes(content[: kept[0]])
    launch.refuses_file(DAMAGED, path)


WRONG = {  # what is changed in the arrays -> what the line says
    "strings": ({"actions": np.full((ROWS, 2), b"left")}, "holds |S4, numbers are nee"),
    "complex": ({"rewards": np.zeros(ROWS, complex)}, "holds complex128, numbers are"),
    "a vector of observations": ({"observations": np.zeros(ROWS)}, "[steps, size] is"),
    "images": ({"observations": np.zeros((ROWS, 8, 8, 3))}, "[steps, size] is needed"),
    "two rewards a step": ({"rewards": np.zeros((ROWS, 2))}, "[steps] is needed"),
    "a single number": ({"rewards": np.float32(3)}, "has shape (); [steps] is needed"),
    "no rewards": ({"rewards": None}, "lacks rewards; a dataset needs"),
    "no terminals": ({"terminals": None}, "lacks terminals; a dataset needs"),
    "no ends": ({"timeouts": None}, "add one of them, or give episode_len"),
    "no end set": ({"timeouts": np.zeros(ROWS, bool)}, "no complete trajectory in 60"),
    "one row less": ({"actions": np.zeros((ROWS - 1, 2))}, "differ in length: obse"),
    "one row more": ({"timeouts": np.zeros(ROWS + 1, bool)}, "differ in length: obse"),
    "no rows": (arrays(rows=0), "is empty, its shape is (0, 3)"),
    "no columns": ({"actions": np.zeros((ROWS, 0))}, "is empty, its shape is (60, 0)"),
    "NaN in observations": (with_value("observations", 7, np.nan), "first in row 7"),
    "infinity in actions": (with_value("actions", 8, np.inf), "first in row 8"),
    "NaN in rewards": (with_value("rewards", 9, np.nan), "first in row 9"),
    "NaN in terminals": (with_value("terminals", 10, np.nan), "first in row 10"),
    "infinity in timeouts": (with_value("timeouts", 11, np.inf), "first in row 11"),
    "beyond float32": (with_value("rewards", 12, 1e39), "too large for float32, first"),
    "returns beyond float32": ({"rewards": np.full(ROWS, 3e38)}, "scale them down in"),
    "a flag of 2": (with_value("terminals", 13, 2), "has 0 to 2, not 0 or 1"),
    "a flag of -1": (with_value("timeouts", 13, -1), "has -1 to 1, not 0 or 1"),
    "ends that are lengths": (
        {"timeouts": None, "episode_ends": [15, 15, 15, 15]},
        "episode_ends must be growing integers from 1 to 60",
    ),
    "ends beyond the data": (
        {"timeouts": None, "episode_ends": [15, 61]},
        "episode_ends must be growing integers from 1 to 60",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arrays(launch, name):
    """In one format or the other: what they have in common reads both."""
    changes, told = WRONG[name]
    kind = sorted(WRITERS)[list(WRONG).index(name) % 2]
    path = WRITERS[kind](launch.folder / f"data.{kind}", arrays(**changes))
    launch.refuses(
        (told, str(path)), f"--config.data_path={path}", "--config.reward_scale=1"
    )


@pytest.mark.parametrize("name", FILES)
def test_bad_file(launch, name):
    make, told = FILES[name]
    launch.refuses_file(told, make(launch.folder / name.replace(" ", "_")))


def test_what_is_no_file_of_ours(launch):
    launch.refuses_file(("is no ordinary file",), "/dev/zero")
    launch.refuses(
        ("is no path: download the file",),
        "--config.data_path=https://example.org/a.hdf5",
    )
    launch.refuses(("no such file",), f"--config.data_path={launch.folder}/none.hdf5")


def test_another_environments_observations(launch):
    path = to_hdf5(launch.folder / "data.hdf5", arrays())
    launch.refuses_file(
        (
            "observations of 3 and actions of 2 numbers don't fit",
            "11 and 3",
            "give the",
        ),
        path,
        "--config=configs/hopper.py:medium",
        "--config.target_returns=1",
    )


def test_a_longer_episode_than_said(launch):
    path = to_hdf5(launch.folder / "data.hdf5", arrays())
    told = ("trajectory 0 has 15 steps, more than", "give episode_len=15")
    launch.refuses_file(told, path, "--config.episode_len=10")


# What looks odd and is right.


def test_names_with_spaces_and_of_any_script(launch):
    folder = launch.folder / "мои данные" / "数据 😀"
    folder.mkdir(parents=True)
    launch.workdir = folder / "a run"
    path = to_npz(folder / "été = 1.npz", arrays())
    link = folder / "a link"
    link.symlink_to(path)
    for name in (path, link):
        said = launch.runs(f"--config.data_path={name}")
        # The picture's font has not every letter.
        assert all("Glyph" in line for line in said.splitlines())
        shutil.rmtree(launch.workdir)


def test_episodes_of_one_step(launch):
    """Bandits are data too; that a third of antmaze's episodes are such, is D4RL's."""
    path = to_hdf5(launch.folder / "data.hdf5", arrays(terminals=np.ones(ROWS, bool)))
    assert launch.runs(f"--config.data_path={path}") == ""


def test_actions_out_of_range_are_warned_of(launch):
    data = arrays(**with_value("actions", 3, 1.5))
    path = to_hdf5(launch.folder / "data.hdf5", data)
    err = launch.runs(f"--config.data_path={path}", "--config.max_action=1")
    assert re.fullmatch(
        r"launch.py: warning: .*data.hdf5: 1 of 60 actions lie outside .*clip them\n",
        err,
    )


# Where there is less room than the data needs.


@pytest.fixture
def small_disk(launch):
    """Return what mounts a disk of 1 MB as the cache folder, if we may."""

    def mount(options="size=1m"):
        launch.cache.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(launch.cache)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small disk is not allowed here")

    yield mount
    subprocess.run(["umount", str(launch.cache)], capture_output=True)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_is_too_small_is_told_before_it_is_filled(launch, small_disk, kind):
    """A small file of zeros, which unpacks to more than there is."""
    small_disk()
    rows = 100_000
    data = {key: np.zeros((rows, *a.shape[1:])) for key, a in arrays().items()}
    options = {"compression": "gzip"} if kind == "hdf5" else {}
    path = WRITERS[kind](launch.folder / f"data.{kind}", data, **options)
    assert path.stat().st_size < 100_000
    launch.refuses(
        (
            str(launch.cache),
            "0.00105 GB are free",
            "0.0024 GB are to be kept",
            "DT_JAX",
        ),
        f"--config.data_path={path}",
        "--config.memory_limit_gb=0.001",
    )


def test_a_disk_that_is_full_in_the_middle(launch, small_disk):
    """No name is left for the second file: one line more, and nothing half-written."""
    small_disk("size=64m,nr_inodes=6")
    path = to_hdf5(launch.folder / "data.hdf5", arrays(), compression="gzip")
    status, _, err = run(
        *launch.command(f"--config.data_path={path}", "--config.memory_limit_gb=0"),
        **launch.environment,
    )
    *progress, line = err.splitlines()
    assert status == 2
    assert all("stay on the disk" in said or "unpacking" in said for said in progress)
    assert line.startswith(f"launch.py: error: {launch.cache}")
    assert "No space left on device" in line
    assert "name another folder by DT_JAX_DATA" in line
    assert not launch.workdir.exists()
    assert not [path for path in files_in(launch.cache) if path.suffix not in SUFFIXES]
