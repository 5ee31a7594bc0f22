"""Corrupt and unusual datasets in the real program.

launch.py must end with status 2 and one line that says what is wrong and what to do,
without writing anything. tests/data/ has many more files for the readers alone.
"""

import json
import os
import re
import resource
import shutil
import time

import h5py
import numpy as np
import pytest
from command import SMALL_NETWORK, refusal, run
from recording import record

TINY = [
    "--config=configs/own_data.py",
    *SMALL_NETWORK,
    "--config.update_steps=2",
    "--config.eval_every=2",
]
ROWS, EPISODE = 60, 15
MAX_MEMORY, MAX_SECONDS = 1 << 30, 120  # of a program that refuses a file
MINARI = "hopper/test-v0"


def arrays(rows=ROWS, **changes):
    rng = np.random.default_rng(0)
    return {
        "observations": rng.standard_normal((rows, 3), np.float32),
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "rewards": rng.uniform(0, 1, rows).astype(np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.arange(1, rows + 1) % EPISODE == 0,
    } | changes


def to_hdf5(path, data, **options):
    with h5py.File(path, "w") as file:
        for key, array in data.items():
            if array is not None:
                file.create_dataset(key, data=array, **options)
    return path


def to_npz(path, data):
    with path.open("wb") as file:
        np.savez_compressed(file, **{k: v for k, v in data.items() if v is not None})
    return path


WRITERS = {"hdf5": to_hdf5, "npz": to_npz}


def with_value(key, row, value):
    array = arrays()[key].astype(np.float64)
    array[row] = value
    return {key: array}


class Launch:
    """launch.py with its own run folder and cache folder."""

    def __init__(self, folder):
        self.folder = folder
        self.workdir, self.cache = folder / "run", folder / "cache"

    def command(self, *arguments):
        return ("launch.py", *TINY, *arguments, f"--workdir={self.workdir}")

    def refuses(self, parts, *arguments):
        """Check that it fails quickly, in one line, and without leaving files."""
        start, before = time.monotonic(), peak_memory_of_children()
        line = refusal(*self.command(*arguments), DT_JAX_DATA=str(self.cache))
        assert time.monotonic() - start < MAX_SECONDS
        assert peak_memory_of_children() <= max(before, MAX_MEMORY)
        assert line.startswith("launch.py: error: ")
        for part in parts:
            assert part in line
        assert not self.workdir.exists()
        assert files_in(self.cache) == []

    def refuses_file(self, parts, path, *arguments):
        self.refuses((str(path), *parts), f"--config.data_path={path}", *arguments)

    def runs(self, *arguments):
        """Check that it succeeds; return its stderr without progress lines."""
        status, _, err = run(*self.command(*arguments), DT_JAX_DATA=str(self.cache))
        assert status == 0, err
        assert (self.workdir / "metrics.jsonl").exists()
        lines = err.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("step "))


def files_in(folder):
    return [path for path in folder.rglob("*") if not path.is_dir()]


def peak_memory_of_children():
    return 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


@pytest.fixture
def launch(tmp_path):
    return Launch(tmp_path)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("kind", WRITERS)
def test_truncated_file_is_refused(launch, kind, share):
    path = WRITERS[kind](launch.folder / f"data.{kind}", arrays())
    os.truncate(path, int(share * path.stat().st_size))
    parts = ("corrupt, or not an HDF5 or .npz file", "download it again")
    launch.refuses_file(parts, path)


WRONG = {  # name -> changed arrays, part of the error
    "strings": ({"actions": np.full((ROWS, 2), b"left")}, "has dtype |S4, expected"),
    "complex": ({"rewards": np.zeros(ROWS, complex)}, "has dtype complex128, expected"),
    "no ends": ({"timeouts": None}, "add one of them, or set episode_len"),
    "no end set": ({"timeouts": np.zeros(ROWS, bool)}, "no complete trajectory in 60"),
    "infinity": (with_value("actions", 8, np.inf), "first in row 8"),
    "large returns": ({"rewards": np.full(ROWS, 3e38)}, "scale the rewards"),
    "a flag of 2": (with_value("terminals", 13, 2), "contains 0 to 2, expected 0 or 1"),
    "ends that are lengths": (
        {"timeouts": None, "episode_ends": [15, 15, 15, 15]},
        "episode_ends must be increasing integers from 1 to 60",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arrays_are_refused(launch, name):
    """In either format: the checks are shared."""
    changes, message = WRONG[name]
    kind = sorted(WRITERS)[list(WRONG).index(name) % 2]
    path = WRITERS[kind](launch.folder / f"data.{kind}", arrays(**changes))
    launch.refuses_file((message,), path, "--config.reward_scale=1")


def half_written(path):
    """Write a file like a recording that was killed."""
    with h5py.File(path, "w") as file:
        for key, array in arrays().items():
            chunks = (10, *array.shape[1:])
            made = file.create_dataset(key, array.shape, array.dtype, chunks=chunks)
            made[: ROWS // 2] = array[: ROWS // 2]


def encrypted(path):
    to_npz(path, arrays())
    content = bytearray(path.read_bytes())
    for signature, offset in (b"PK\x03\x04", 6), (b"PK\x01\x02", 8):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)


def unreadable(path):
    if os.geteuid() == 0:
        pytest.skip("root may read anything")
    to_hdf5(path, arrays()).chmod(0)


@pytest.mark.parametrize(
    ("write", "part"),
    [
        (half_written, "fewer or more numbers are stored"),
        (encrypted, "corrupt, or not an HDF5 or .npz file"),
        (unreadable, "Permission denied"),
        (os.mkdir, "is a folder, expected an HDF5 or .npz file"),
        (os.mkfifo, "is not a regular file, expected an HDF5"),
        (lambda path: None, "no such file"),
    ],
)
def test_bad_file_is_refused(launch, write, part):
    path = launch.folder / "data"
    write(path)
    launch.refuses_file((part,), path)


def test_paths_that_are_not_local_files_are_refused(launch):
    launch.refuses_file(("is not a regular file",), "/dev/zero")
    url = "--config.data_path=https://example.org/a.hdf5"
    launch.refuses(("is not a local path; download it",), url)


def test_data_of_another_environment_is_refused(launch):
    path = to_hdf5(launch.folder / "data.hdf5", arrays())
    sizes = "observation size 3 and action size 2 do not match"
    flags = "--config=configs/hopper.py:medium", "--config.target_returns=1"
    launch.refuses_file((sizes, "11 and 3", "set env_name"), path, *flags)


def test_episode_longer_than_episode_len_is_refused(launch):
    path = to_hdf5(launch.folder / "data.hdf5", arrays())
    parts = ("trajectory 0 has 15 steps, more than", "set episode_len=15")
    launch.refuses_file(parts, path, "--config.episode_len=10")


def cut_file(folder):
    os.truncate(folder / "main_data.hdf5", 3000)


def change_format(folder):
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(metadata | {"data_format": "x"}))


def test_corrupt_minari_dataset_is_refused(launch, monkeypatch):
    valid, root = launch.folder / "valid", launch.folder / "minari"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(valid))
    monkeypatch.setenv("MINARI_REMOTE", "nowhere://at-all")
    record("Hopper-v5", MINARI, (20, 10, 15))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    flags = f"--config.env_name=minari:{MINARI}", "--config.eval_episodes=0"
    for corrupt in (change_format, cut_file):
        shutil.copytree(valid, root)
        corrupt(root / MINARI / "data")
        parts = (f"minari:{MINARI}", "cannot be read", "download it again into")
        launch.refuses(parts, *flags)
        shutil.rmtree(root)
    shutil.copytree(valid, root)
    assert launch.runs(*flags) == ""


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
    actions = with_value("actions", 3, 2.5)["actions"][:, :1]
    path = to_hdf5(launch.folder / "data.hdf5", arrays(actions=actions))
    flags = "--config.env_name=Pendulum-v1", "--config.eval_episodes=0"
    err = launch.runs(f"--config.data_path={path}", *flags)
    warning = (
        r"launch.py: warning: .*data.hdf5: 1 of 60 actions are outside .*clip .*\n"
    )
    assert re.fullmatch(warning, err)


# Less disk space than the data needs.


@pytest.mark.parametrize("kind", WRITERS)
def test_small_disk_is_reported_before_it_is_filled(launch, mount, kind):
    """The small file of zeros is unpacked to more than the disk can hold."""
    data = {key: np.zeros((100_000, *a.shape[1:])) for key, a in arrays().items()}
    options = {"compression": "gzip"} if kind == "hdf5" else {}
    path = WRITERS[kind](launch.folder / f"data.{kind}", data, **options)
    assert path.stat().st_size < 100_000
    with mount("cache", "size=1m"):
        words = str(launch.cache), "0.00105 GB are free", "0.0024 GB are needed"
        launch.refuses(
            (*words, "DT_JAX"),
            f"--config.data_path={path}",
            "--config.memory_limit_gb=0.001",
        )


def test_disk_that_gets_full_is_reported(launch, mount):
    """The disk has no inode for the second file; no partial file may be left."""
    path = to_hdf5(launch.folder / "data.hdf5", arrays(), compression="gzip")
    flags = f"--config.data_path={path}", "--config.memory_limit_gb=0"
    with mount("cache", "size=64m,nr_inodes=6"):
        status, _, err = run(*launch.command(*flags), DT_JAX_DATA=str(launch.cache))
        kept = {path.suffix for path in files_in(launch.cache)}
    assert status == 2
    line = err.splitlines()[-1]
    assert line.startswith(f"launch.py: error: {launch.cache}")
    assert "No space left on device" in line
    assert "set DT_JAX_DATA to another folder" in line
    assert not launch.workdir.exists()
    assert kept <= {".npy", ".sha256", ".lock"}
