"""Truncated, corrupt and inconsistent datasets, and files of other kinds.

launch.py must end with status 2 and one line that says what is wrong and what to do,
without writing anything.
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
    CORRUPT,
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
def test_truncated_file_is_refused(launch, kind, place):
    path = WRITERS[kind](launch.folder / f"data.{kind}", arrays())
    content = path.read_bytes()
    rng = random.Random(place)
    kept = [0, 1, 4, 8, len(content) - 1][place : place + 1] or [
        rng.randrange(9, len(content) - 1)
    ]
    path.write_bytes(content[: kept[0]])
    launch.refuses_file(CORRUPT, path)


WRONG = {  # name -> changed arrays, part of the error
    "strings": (
        {"actions": np.full((ROWS, 2), b"left")},
        "has dtype |S4, expected",
    ),
    "complex": ({"rewards": np.zeros(ROWS, complex)}, "has dtype complex128, expected"),
    "a vector of observations": (
        {"observations": np.zeros(ROWS)},
        "expected [steps, size]",
    ),
    "images": ({"observations": np.zeros((ROWS, 8, 8, 3))}, "expected [steps, size]"),
    "two rewards a step": ({"rewards": np.zeros((ROWS, 2))}, "expected [steps]"),
    "a single number": ({"rewards": np.float32(3)}, "has shape (), expected [steps]"),
    "no rewards": ({"rewards": None}, "rewards missing; a dataset needs"),
    "no terminals": ({"terminals": None}, "terminals missing; a dataset needs"),
    "no ends": ({"timeouts": None}, "add one of them, or set episode_len"),
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
    "returns beyond float32": (
        {"rewards": np.full(ROWS, 3e38)},
        "scale the rewards",
    ),
    "a flag of 2": (with_value("terminals", 13, 2), "contains 0 to 2, expected 0 or 1"),
    "a flag of -1": (
        with_value("timeouts", 13, -1),
        "contains -1 to 1, expected",
    ),
    "ends that are lengths": (
        {"timeouts": None, "episode_ends": [15, 15, 15, 15]},
        "episode_ends must be increasing integers from 1 to 60",
    ),
    "ends beyond the data": (
        {"timeouts": None, "episode_ends": [15, 61]},
        "episode_ends must be increasing integers from 1 to 60",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arrays_are_refused(launch, name):
    """In either format: the checks are shared."""
    changes, message = WRONG[name]
    kind = sorted(WRITERS)[list(WRONG).index(name) % 2]
    path = WRITERS[kind](launch.folder / f"data.{kind}", arrays(**changes))
    launch.refuses(
        (message, str(path)), f"--config.data_path={path}", "--config.reward_scale=1"
    )


@pytest.mark.parametrize("name", FILES)
def test_bad_file_is_refused(launch, name):
    write, parts = FILES[name]
    launch.refuses_file(parts, write(launch.folder / name.replace(" ", "_")))


def test_paths_that_are_not_local_files_are_refused(launch):
    launch.refuses_file(("is not a regular file",), "/dev/zero")
    launch.refuses(
        ("is not a local path; download it",),
        "--config.data_path=https://example.org/a.hdf5",
    )
    launch.refuses(("no such file",), f"--config.data_path={launch.folder}/none.hdf5")


def test_data_of_another_environment_is_refused(launch):
    path = to_hdf5(launch.folder / "data.hdf5", arrays())
    launch.refuses_file(
        (
            "observation size 3 and action size 2 do not match",
            "11 and 3",
            "set env_name",
        ),
        path,
        "--config=configs/hopper.py:medium",
        "--config.target_returns=1",
    )


def test_episode_longer_than_episode_len_is_refused(launch):
    path = to_hdf5(launch.folder / "data.hdf5", arrays())
    parts = ("trajectory 0 has 15 steps, more than", "set episode_len=15")
    launch.refuses_file(parts, path, "--config.episode_len=10")


# Unusual, but valid data.


def test_names_with_spaces_and_any_script(launch):
    folder = launch.folder / "мои данные" / "数据 😀"
    folder.mkdir(parents=True)
    launch.workdir = folder / "a run"
    path = to_npz(folder / "été = 1.npz", arrays())
    link = folder / "a link"
    link.symlink_to(path)
    for name in (path, link):
        stderr = launch.runs(f"--config.data_path={name}")
        # The plot's font does not have every character.
        assert all("Glyph" in line for line in stderr.splitlines())
        shutil.rmtree(launch.workdir)


def test_episodes_of_one_step(launch):
    """Bandits are valid data, and so are D4RL's antmaze files."""
    path = to_hdf5(launch.folder / "data.hdf5", arrays(terminals=np.ones(ROWS, bool)))
    assert launch.runs(f"--config.data_path={path}") == ""


def test_actions_out_of_range_give_a_warning(launch):
    data = arrays(**with_value("actions", 3, 1.5))
    path = to_hdf5(launch.folder / "data.hdf5", data)
    err = launch.runs(f"--config.data_path={path}", "--config.max_action=1")
    assert re.fullmatch(
        r"launch.py: warning: .*data.hdf5: 1 of 60 actions are outside .*clip .*\n",
        err,
    )


# Less disk space than the data needs.


@pytest.fixture
def small_disk(launch):
    """Return a function that mounts a small disk as the cache folder."""

    def mount(options="size=1m"):
        launch.cache.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(launch.cache)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small disk is not allowed here")

    yield mount
    subprocess.run(["umount", str(launch.cache)], capture_output=True)


@pytest.mark.parametrize("kind", WRITERS)
def test_small_disk_is_reported_before_it_is_filled(launch, small_disk, kind):
    """The small file of zeros is unpacked to more than the disk can hold."""
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
            "0.0024 GB are needed",
            "DT_JAX",
        ),
        f"--config.data_path={path}",
        "--config.memory_limit_gb=0.001",
    )


def test_disk_that_gets_full_is_reported(launch, small_disk):
    """The disk has no inode for the second file; no partial file may be left."""
    small_disk("size=64m,nr_inodes=6")
    path = to_hdf5(launch.folder / "data.hdf5", arrays(), compression="gzip")
    status, _, err = run(
        *launch.command(f"--config.data_path={path}", "--config.memory_limit_gb=0"),
        **launch.environment,
    )
    *progress, line = err.splitlines()
    assert status == 2
    assert all("memory-mapping" in text or "unpacking" in text for text in progress)
    assert line.startswith(f"launch.py: error: {launch.cache}")
    assert "No space left on device" in line
    assert "set DT_JAX_DATA to another folder" in line
    assert not launch.workdir.exists()
    assert not [path for path in files_in(launch.cache) if path.suffix not in SUFFIXES]
