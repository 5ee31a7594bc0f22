"""Files in D4RL's schema: content in other files is refused in test_security.py."""

import errno
import fcntl
import re
import shutil
from contextlib import contextmanager, nullcontext
from pathlib import Path

import h5py
import numpy as np
import pytest

from dt_jax.data.arrays import BLOCK_ROWS
from dt_jax.data.d4rl import read_d4rl, read_env_name
from dt_jax.data.schema import RawData, corrupt_file_errors
from dt_jax.utils.errors import UserError


def assert_same(ours: RawData, theirs: RawData):
    for key, array in theirs._asdict().items():
        np.testing.assert_array_equal(getattr(ours, key), array, strict=True)


def assert_refused(path, message: str):
    with pytest.raises(UserError, match=re.escape(str(path))) as error:
        read_d4rl(path)
    assert message in str(error.value)


def test_float64_gzip_and_single_columns_are_converted(raw, tmp_path):
    path = tmp_path / "data.hdf5"
    with h5py.File(path, "w") as file:
        for key in ("observations", "actions"):
            wide = getattr(raw, key).astype(np.float64)
            file.create_dataset(key, data=wide, compression="gzip", chunks=(7, 1))
        file["rewards"] = raw.rewards.astype(np.float64)[:, None]
        file["terminals"] = raw.terminals.astype(np.uint8)[:, None]
        file["timeouts"] = raw.timeouts.astype(np.float32)
        file["infos/qpos"] = np.zeros(3)  # other keys are ignored
    assert_same(read_d4rl(path), raw)


def with_value(array: np.ndarray, row: int, value: float) -> np.ndarray:
    array = array.astype(np.float64)
    array[row] = value
    return array


NOT_FINITE = "is NaN, infinite or too large for float32, first in row"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda raw: {"terminals": None}, "terminals missing; a dataset needs obs"),
        (lambda raw: {"actions": None, "rewards": None}, "actions, rewards missing;"),
        (lambda raw: {"actions": raw.actions[:-1]}, "actions (70, 2), rewards (71,)"),
        (lambda raw: {"timeouts": raw.timeouts[:9]}, "timeouts (9,)"),
        (lambda raw: {"timeouts": None}, "timeouts and episode_ends missing; add one"),
        (
            lambda raw: {"timeouts": None, "truncations": raw.timeouts},
            "rename the array truncations to timeouts",
        ),
        (lambda raw: {"observations": raw.rewards}, "observations has shape (71,)"),
        (lambda raw: {"rewards": raw.actions}, "rewards has shape (71, 2)"),
        (lambda raw: {"rewards": np.float32(1)}, "rewards has shape ()"),
        (lambda raw: {k: v[:0] for k, v in raw._asdict().items()}, "is empty"),
        (lambda raw: {"actions": raw.actions[:, :0]}, "actions is empty"),
        (lambda raw: {"actions": np.full(71, b"left")}, "actions has dtype |S4"),
        (
            lambda raw: {"observations": with_value(raw.observations, 13, np.nan)},
            f"observations {NOT_FINITE} 13",
        ),
        (  # finite, but not as float32
            lambda raw: {"actions": with_value(raw.actions, 5, 1e300)},
            f"actions {NOT_FINITE} 5",
        ),
        (
            lambda raw: {"terminals": with_value(raw.terminals, 8, np.nan)},
            f"terminals {NOT_FINITE} 8",
        ),
        (
            lambda raw: {"timeouts": np.where(raw.timeouts, 1, -1)},
            "timeouts contains -1 to 1, expected 0 or 1",
        ),
    ],
)
def test_invalid_arrays_are_reported(raw, write_hdf5, changes, message):
    assert_refused(write_hdf5(raw, **changes(raw)), message)


def test_reported_row_counts_over_blocks(write_hdf5):
    rows = BLOCK_ROWS + 100
    flags, rewards = np.zeros(rows, bool), np.zeros(rows, np.float32)
    rewards[BLOCK_ROWS + 3 :] = np.inf
    matrix = np.zeros((rows, 1), np.float32)
    path = write_hdf5(RawData(matrix, matrix, rewards, flags, flags))
    assert_refused(path, f"rewards {NOT_FINITE} {rows - 97}")


@pytest.mark.parametrize("key", RawData._fields)
@pytest.mark.parametrize(
    "link",
    [
        lambda file: file["infos/recorded"],  # a hard link
        lambda file: h5py.SoftLink("/infos/recorded"),
        lambda file: h5py.SoftLink("infos/again"),  # a link to a link
    ],
)
def test_links_inside_a_file_are_read_like_arrays(raw, write_hdf5, key, link):
    path = write_hdf5(raw)
    with h5py.File(path, "a") as file:
        file["infos/again"] = h5py.SoftLink("recorded")
        file.move(key, "infos/recorded")
        file[key] = link(file)
    assert_same(read_d4rl(path), raw)
    assert_same(read_d4rl(path, memory_limit_gb=0), raw)


@pytest.mark.parametrize("key", ["actions", "timeouts"])
@pytest.mark.parametrize("target", ["nothing", "other"])
def test_broken_and_circular_links_are_refused(raw, write_hdf5, key, target):
    path = write_hdf5(raw, **{key: None})
    with h5py.File(path, "a") as file:
        file[key] = h5py.SoftLink(target)
        if target == "other":
            file["other"] = h5py.SoftLink(key)
    assert_refused(path, "is a broken or circular link; delete it")


def test_broken_links_under_other_names_are_ignored(raw, write_hdf5):
    path = write_hdf5(raw)
    with h5py.File(path, "a") as file:
        file["notes"] = h5py.SoftLink("nothing")
    assert_same(read_d4rl(path), raw)


def test_virtual_dataset_of_the_same_file_is_refused_as_one(raw, write_hdf5):
    path = write_hdf5(raw)
    with h5py.File(path, "a") as file:
        file.move("rewards", "recorded")
        layout = h5py.VirtualLayout(raw.rewards.shape, "f4")
        layout[:] = h5py.VirtualSource(".", "recorded", raw.rewards.shape)
        file.create_virtual_dataset("rewards", layout)
    assert_refused(path, "rewards is stored in another file, or a virtual dataset;")


@contextmanager
def locked(path):
    """Lock a file like a program that writes it."""
    with path.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("limit", [None, 0])
def test_locked_file_is_read(raw, write_hdf5, limit):
    path = write_hdf5(raw)
    with locked(path):
        assert_same(read_d4rl(path, memory_limit_gb=limit), raw)
        assert read_env_name(path) is None


@pytest.mark.parametrize("mode", ["r", "a"])
def test_file_that_this_process_has_open_is_read(raw, write_hdf5, mode):
    path = write_hdf5(raw)
    with h5py.File(path, mode):
        assert_same(read_d4rl(path), raw)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_file_that_is_being_written_is_not_called_corrupt(raw, tmp_path, libver):
    """The latest format marks a file as open; the earliest only has the lock."""
    path = tmp_path / "data.hdf5"
    with h5py.File(tmp_path / "writing.hdf5", "w", libver=libver) as file:
        file["rewards"] = raw.rewards
        if libver == "latest":
            file.flush()
        shutil.copy(file.filename, path)
    message = "is being written by another program, or one was killed while it wrote"
    with locked(path) if libver == "earliest" else nullcontext():
        assert_refused(path, message)
    if libver == "earliest":
        assert_refused(path, "corrupt, or not an HDF5")


def test_disk_errors_are_not_called_corrupt():
    path = Path("data.hdf5")
    message = r"^data.hdf5 cannot be read \(Input/output error\); check its file"
    with pytest.raises(UserError, match=message), corrupt_file_errors(path):
        raise OSError(errno.EIO, "file read failed")


def test_format_is_detected_by_content(raw, write_hdf5, tmp_path):
    assert_same(read_d4rl(write_hdf5(raw, "hdf5.npz")), raw)
    for name in ("plain", "npz.hdf5"):
        np.savez(tmp_path / "data.npz", **raw._asdict())
        path = (tmp_path / "data.npz").rename(tmp_path / name)
        assert_same(read_d4rl(path), raw)
        assert read_env_name(path) is None


@pytest.mark.parametrize("options", [{}, {"chunks": (10, 2)}], ids=["whole", "chunked"])
def test_unwritten_rows_are_refused_except_for_flags(raw, write_hdf5, options):
    """HDF5 reads them as zeros."""
    path = write_hdf5(raw, actions=None, terminals=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("terminals", (71,), bool)
        actions = file.create_dataset("actions", (71, 2), "f4", **options)
        assert_refused(path, "actions announces shape (71, 2), but fewer or more")
        actions[:60] = raw.actions[:60]
    if options:  # a contiguous dataset is written as a whole
        assert_refused(path, "actions announces shape (71, 2), but fewer or more")
        with h5py.File(path, "a") as file:
            file["actions"][60:] = raw.actions[60:]
        read = read_d4rl(path)
        np.testing.assert_array_equal(read.actions, raw.actions)
        assert not read.terminals.any()


def test_memory_limit_is_capped_by_the_machine_memory(raw, write_hdf5, monkeypatch):
    monkeypatch.setattr("dt_jax.data.d4rl.machine_memory", lambda: 1000)
    read = read_d4rl(write_hdf5(raw), memory_limit_gb=100)
    assert isinstance(read.observations, np.memmap)


def test_paths_that_are_not_data_files_are_refused(tmp_path):
    assert_refused(tmp_path / "missing.hdf5", "no such file")
    url = Path("https://example.org/data.hdf5")
    assert_refused(url, "is not a local path; download it")
    assert_refused(tmp_path, "is a folder")
    (tmp_path / "data.hdf5").write_text("<html>404</html>" * 100)
    assert_refused(tmp_path / "data.hdf5", "corrupt, or not an HDF5 or .npz file")


@pytest.mark.parametrize("kept", [0, 100, -100])
@pytest.mark.parametrize("write", [None, np.savez, np.savez_compressed])
def test_truncated_file_is_refused(raw, write_hdf5, tmp_path, write, kept):
    path = tmp_path / "data.npz"
    if write:
        write(path, **raw._asdict())
    else:
        path = write_hdf5(raw)
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused(path, "corrupt, or not an HDF5 or .npz file")
