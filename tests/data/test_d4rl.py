from pathlib import Path

import h5py
import numpy as np
import pytest

from dt_jax.data.arrays import BLOCK_ROWS
from dt_jax.data.d4rl import read_d4rl, read_env_name
from dt_jax.data.schema import RawData
from dt_jax.utils.errors import UserError


def assert_same(ours: RawData, theirs: RawData):
    for key, array in theirs._asdict().items():
        np.testing.assert_array_equal(getattr(ours, key), array, strict=True)


def test_read_returns_what_was_written(raw, write_hdf5):
    assert_same(read_d4rl(write_hdf5(raw)), raw)


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


def with_nan(array: np.ndarray, row: int, value: float = np.nan) -> np.ndarray:
    array = array.astype(np.float64)
    array[row] = value
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda raw: {"terminals": None}, "terminals missing; a dataset needs obs"),
        (lambda raw: {"actions": None, "rewards": None}, "actions, rewards missing;"),
        (lambda raw: {"actions": raw.actions[:-1]}, "actions 70, rewards 71"),
        (lambda raw: {"timeouts": raw.timeouts[:9]}, "timeouts 9"),
        (lambda raw: {"observations": raw.rewards}, "observations has shape (71,)"),
        (lambda raw: {"rewards": raw.actions}, "rewards has shape (71, 2)"),
        (lambda raw: {"rewards": np.float32(1)}, "rewards has shape ()"),
        (lambda raw: {k: v[:0] for k, v in raw._asdict().items()}, "is empty"),
        (lambda raw: {"actions": raw.actions[:, :0]}, "actions is empty"),
        (lambda raw: {"actions": np.full(71, b"left")}, "actions has dtype |S4"),
        (
            lambda raw: {"observations": with_nan(raw.observations, 13)},
            "observations is NaN, infinite or too large for float32, first in row 13",
        ),
        (
            lambda raw: {"rewards": with_nan(raw.rewards, 70, -np.inf)},
            "rewards is NaN, infinite or too large for float32, first in row 70",
        ),
        (  # finite, but not as float32
            lambda raw: {"actions": with_nan(raw.actions, 5, 1e300)},
            "actions is NaN, infinite or too large for float32, first in row 5",
        ),
        (
            lambda raw: {"terminals": with_nan(raw.terminals, 8)},
            "terminals is NaN, infinite or too large for float32, first in row 8",
        ),
    ],
)
def test_invalid_arrays_are_reported(raw, write_hdf5, changes, message):
    path = write_hdf5(raw, **changes(raw))
    assert_one_line(path, message)


def test_episode_ends_replace_timeouts(raw, write_hdf5):
    ends = np.flatnonzero(raw.timeouts) + 1
    path = write_hdf5(raw, timeouts=None, episode_ends=ends)
    assert_same(read_d4rl(path), raw)
    wrong = ~raw.timeouts  # timeouts take precedence
    path = write_hdf5(raw, episode_ends=np.flatnonzero(wrong) + 1)
    assert_same(read_d4rl(path), raw)


@pytest.mark.parametrize(
    "ends",
    [[], [3, 3], [5, 4], [0, 9], [9, 72], [1.0, 2.0], [[1], [2]], [True, False]],
    ids=str,
)
def test_invalid_episode_ends_are_reported(raw, write_hdf5, ends):
    path = write_hdf5(raw, timeouts=None, episode_ends=np.array(ends))
    assert_one_line(
        path, "episode_ends must be increasing integers from 1 to 71, the row"
    )


@pytest.mark.parametrize("episode_len", [1, 3, 7, 39, 40, 1000])
def test_episode_len_replaces_missing_episode_ends(raw, write_hdf5, episode_len):
    timeouts, age = [], 0
    for terminal in raw.terminals:
        age += 1
        timeouts.append(age == episode_len)
        if terminal or timeouts[-1]:
            age = 0
    path = write_hdf5(raw, timeouts=None)
    with pytest.warns(UserWarning, match=f"to end after {episode_len} steps"):
        read = read_d4rl(path, episode_len=episode_len)
    assert_same(read, raw._replace(timeouts=np.array(timeouts)))


def test_episode_len_longer_than_the_file_is_refused(raw, write_hdf5):
    path = write_hdf5(raw, timeouts=None, terminals=0 * raw.rewards)
    with pytest.raises(UserError, match="episode_len=72 exceeds the 71 rows"):
        read_d4rl(path, episode_len=72)


@pytest.mark.parametrize("key", ["terminals", "timeouts"])
def test_flags_other_than_0_or_1_are_refused(raw, write_hdf5, key):
    signs = np.where(getattr(raw, key), 1, -1)
    message = f"{key} contains -1 to 1, expected 0 or 1"
    assert_one_line(write_hdf5(raw, **{key: signs}), message)


def test_format_is_detected_by_content(raw, write_hdf5, tmp_path):
    assert_same(read_d4rl(write_hdf5(raw, "hdf5.npz")), raw)
    np.savez(tmp_path / "npz", **raw._asdict())
    for name in ("plain", "npz.hdf5"):
        (tmp_path / "npz.npz").rename(tmp_path / name)
        assert_same(read_d4rl(tmp_path / name), raw)
        assert read_env_name(tmp_path / name) is None
        (tmp_path / name).rename(tmp_path / "npz.npz")


def test_content_in_other_files_is_refused(raw, write_hdf5):
    """The SHA-256 does not cover it, so a run could be resumed with other data."""
    source = write_hdf5(raw, "source.hdf5")
    layout = h5py.VirtualLayout(raw.actions.shape, raw.actions.dtype)
    layout[:] = h5py.VirtualSource(source, "actions", raw.actions.shape)
    path = write_hdf5(raw, "virtual.hdf5", actions=None)
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("actions", layout)
    assert_one_line(path, "actions is stored in another file")

    path = write_hdf5(raw, "external.hdf5", actions=None)
    with h5py.File(path, "a") as file:
        outside = [(str(path.with_name("outside.bin")), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("actions", data=raw.actions, external=outside)
    assert_one_line(path, "actions is stored in another file")

    path = write_hdf5(raw, "linked.hdf5", actions=None)
    with h5py.File(path, "a") as file:
        file["actions"] = h5py.ExternalLink(str(source), "/actions")
    assert_one_line(path, "actions is stored in another file")


@pytest.mark.parametrize("options", [{}, {"chunks": (10, 2)}], ids=["whole", "chunked"])
def test_unwritten_rows_are_refused_except_for_flags(raw, write_hdf5, options):
    """HDF5 reads them as zeros."""
    path = write_hdf5(raw, actions=None, terminals=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("terminals", (71,), bool)
        actions = file.create_dataset("actions", (71, 2), "f4", **options)
        assert_one_line(path, "actions announces shape (71, 2), but fewer or more")
        actions[:60] = raw.actions[:60]
    if options:  # a contiguous dataset is written as a whole
        assert_one_line(path, "actions announces shape (71, 2), but fewer or more")
        with h5py.File(path, "a") as file:
            file["actions"][60:] = raw.actions[60:]
        read = read_d4rl(path)
        np.testing.assert_array_equal(read.actions, raw.actions)
        assert not read.terminals.any()


def test_memory_limit_is_capped_by_the_machine_memory(raw, write_hdf5, monkeypatch):
    monkeypatch.setattr("dt_jax.data.d4rl.machine_memory", lambda: 1000)
    read = read_d4rl(write_hdf5(raw), memory_limit_gb=100)
    assert isinstance(read.observations, np.memmap)


def test_missing_compression_filter_is_reported(raw, tmp_path):
    path = tmp_path / "data.hdf5"
    with h5py.File(path, "w") as file:
        for key, array in raw._asdict().items():
            file.create_dataset(key, data=array, compression="gzip")
    # A filter's record: its number, the length of its name, and that it is optional.
    gzip, other = (b"\x01\0\x08\0\x01\0", b"\x0f\x7d\x08\0\x01\0")
    assert gzip in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(gzip, other))
    assert_one_line(
        path, "uses the HDF5 filter 32015 (deflate), which is not installed"
    )


def test_missing_episode_ends_are_reported(raw, write_hdf5):
    message = "timeouts and episode_ends missing; add one of them, or set episode_len"
    assert_one_line(write_hdf5(raw, timeouts=None), message)


def test_reported_row_counts_over_blocks(write_hdf5):
    rows = BLOCK_ROWS + 100
    flags, rewards = np.zeros(rows, bool), np.zeros(rows, np.float32)
    rewards[BLOCK_ROWS + 3 :] = np.nan
    matrix = np.zeros((rows, 1), np.float32)
    path = write_hdf5(RawData(matrix, matrix, rewards, flags, flags))
    assert_one_line(
        path,
        f"rewards is NaN, infinite or too large for float32, first in row {rows - 97}",
    )


def test_missing_file_is_reported(tmp_path):
    assert_one_line(tmp_path / "missing.hdf5", "no such file")
    (tmp_path / "a").symlink_to(tmp_path / "a")
    assert_one_line(tmp_path / "a", "broken or circular symbolic link")
    url = Path("https://example.org/data.hdf5")
    assert_one_line(url, "is not a local path; download it")


def test_folder_is_refused(tmp_path):
    assert_one_line(tmp_path, "is a folder")


def test_text_file_is_refused(tmp_path):
    path = tmp_path / "data.hdf5"
    path.write_text("<html>404</html>" * 100)
    assert_one_line(path, "corrupt, or not an HDF5 or .npz file")


@pytest.mark.parametrize("kept", [0, 100, -100])
def test_truncated_file_is_refused(raw, write_hdf5, kept):
    path = write_hdf5(raw)
    path.write_bytes(path.read_bytes()[:kept])
    assert_one_line(path, "corrupt, or not an HDF5 or .npz file")


def test_corrupt_chunk_is_reported(raw, tmp_path):
    path = tmp_path / "data.hdf5"
    with h5py.File(path, "w") as file:
        for key, array in raw._asdict().items():
            file.create_dataset(key, data=array, compression="gzip")
        chunk = file["actions"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"x" * chunk.size
    path.write_bytes(content)
    assert_one_line(path, "corrupt, or not an HDF5 or .npz file")


def test_group_instead_of_an_array_is_reported(raw, write_hdf5):
    path = write_hdf5(raw, actions=None)
    with h5py.File(path, "a") as file:
        file.create_group("actions")
    assert_one_line(path, "actions missing")


def assert_one_line(path, message: str):
    with pytest.raises(UserError) as error:
        read_d4rl(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
