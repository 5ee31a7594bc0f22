import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from dt_jax.data.d4rl import read_d4rl, read_env_name, read_states
from dt_jax.data.schema import BLOCK_ROWS, RawData
from dt_jax.utils.errors import UserError


def assert_same(ours: RawData, theirs: RawData):
    for key, array in theirs._asdict().items():
        np.testing.assert_array_equal(getattr(ours, key), array, strict=True)


def test_reads_what_was_written(raw, write_hdf5):
    assert_same(read_d4rl(write_hdf5(raw)), raw)


def test_float64_gzip_and_single_columns_become_the_same_arrays(raw, tmp_path):
    path = tmp_path / "data.hdf5"
    with h5py.File(path, "w") as file:
        for key in ("observations", "actions"):
            wide = getattr(raw, key).astype(np.float64)
            file.create_dataset(key, data=wide, compression="gzip", chunks=(7, 1))
        file["rewards"] = raw.rewards.astype(np.float64)[:, None]
        file["terminals"] = raw.terminals.astype(np.uint8)[:, None]
        file["timeouts"] = raw.timeouts.astype(np.float32)
        file["infos/qpos"] = np.zeros(3)  # other keys don't matter
    assert_same(read_d4rl(path), raw)


def with_nan(array: np.ndarray, row: int, value: float = np.nan) -> np.ndarray:
    array = array.astype(np.float64)
    array[row] = value
    return array


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (lambda raw: {"terminals": None}, "lacks terminals; a dataset needs obs"),
        (lambda raw: {"actions": None, "rewards": None}, "lacks actions, rewards;"),
        (lambda raw: {"actions": raw.actions[:-1]}, "actions 70, rewards 71"),
        (lambda raw: {"timeouts": raw.timeouts[:9]}, "timeouts 9"),
        (lambda raw: {"observations": raw.rewards}, "observations has shape (71,)"),
        (lambda raw: {"rewards": raw.actions}, "rewards has shape (71, 2)"),
        (lambda raw: {"rewards": np.float32(1)}, "rewards has shape ()"),
        (lambda raw: {k: v[:0] for k, v in raw._asdict().items()}, "is empty"),
        (lambda raw: {"actions": raw.actions[:, :0]}, "actions is empty"),
        (lambda raw: {"actions": np.full(71, b"left")}, "actions holds |S4"),
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
def test_one_line_says_what_is_wrong_with_the_arrays(raw, write_hdf5, changes, told):
    path = write_hdf5(raw, **changes(raw))
    assert_one_line(path, told)


def test_timeouts_may_be_the_ends_of_episodes(raw, write_hdf5):
    ends = np.flatnonzero(raw.timeouts) + 1
    path = write_hdf5(raw, timeouts=None, episode_ends=ends)
    assert_same(read_d4rl(path), raw)
    wrong = ~raw.timeouts  # timeouts win where both are there
    path = write_hdf5(raw, episode_ends=np.flatnonzero(wrong) + 1)
    assert_same(read_d4rl(path), raw)


@pytest.mark.parametrize(
    "ends",
    [[], [3, 3], [5, 4], [0, 9], [9, 72], [1.0, 2.0], [[1], [2]], [True, False]],
    ids=str,
)
def test_ends_of_episodes_that_are_none(raw, write_hdf5, ends):
    path = write_hdf5(raw, timeouts=None, episode_ends=np.array(ends))
    assert_one_line(path, "episode_ends must be growing integers from 1 to 71, the row")


@pytest.mark.parametrize("episode_len", [1, 3, 7, 39, 40, 1000])
def test_episodes_are_cut_off_where_the_file_does_not_say(raw, write_hdf5, episode_len):
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


def test_an_episode_longer_than_the_file(raw, write_hdf5):
    path = write_hdf5(raw, timeouts=None, terminals=0 * raw.rewards)
    with pytest.raises(UserError, match="episode_len=72 is more than its 71 rows"):
        read_d4rl(path, episode_len=72)


@pytest.mark.parametrize("key", ["terminals", "timeouts"])
def test_flags_are_0_or_1(raw, write_hdf5, key):
    signs = np.where(getattr(raw, key), 1, -1)
    told = f"{key} has -1 to 1, not 0 or 1"
    assert_one_line(write_hdf5(raw, **{key: signs}), told)


def test_the_format_is_told_by_the_content(raw, write_hdf5, tmp_path):
    assert_same(read_d4rl(write_hdf5(raw, "hdf5.npz")), raw)
    np.savez(tmp_path / "npz", **raw._asdict())
    for name in ("plain", "npz.hdf5"):
        (tmp_path / "npz.npz").rename(tmp_path / name)
        assert_same(read_d4rl(tmp_path / name), raw)
        assert read_env_name(tmp_path / name) is None
        (tmp_path / name).rename(tmp_path / "npz.npz")


def test_what_lies_in_other_files_is_refused(raw, write_hdf5):
    """For nothing holds their content: a run could go on with other data."""
    source = write_hdf5(raw, "source.hdf5")
    layout = h5py.VirtualLayout(raw.actions.shape, raw.actions.dtype)
    layout[:] = h5py.VirtualSource(source, "actions", raw.actions.shape)
    path = write_hdf5(raw, "virtual.hdf5", actions=None)
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("actions", layout)
    assert_one_line(path, "/actions lies in other files")

    path = write_hdf5(raw, "external.hdf5", actions=None)
    with h5py.File(path, "a") as file:
        outside = [(str(path.with_name("outside.bin")), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("actions", data=raw.actions, external=outside)
    assert_one_line(path, "/actions lies in other files")

    path = write_hdf5(raw, "linked.hdf5", actions=None)
    with h5py.File(path, "a") as file:
        file["actions"] = h5py.ExternalLink(str(source), "/actions")
    assert_one_line(path, "actions lies in other files")


@pytest.mark.parametrize("options", [{}, {"chunks": (10, 2)}], ids=["whole", "chunked"])
def test_rows_that_were_never_written(raw, write_hdf5, options):
    """HDF5 reads them as zeros; only for flags that is an answer."""
    path = write_hdf5(raw, actions=None, terminals=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("terminals", (71,), bool)
        actions = file.create_dataset("actions", (71, 2), "f4", **options)
        assert_one_line(path, "actions has shape (71, 2), and that is not what was")
        actions[:60] = raw.actions[:60]
    if options:  # else zeros are written for the others
        assert_one_line(path, "actions has shape (71, 2), and that is not what was")
        with h5py.File(path, "a") as file:
            file["actions"][60:] = raw.actions[60:]
        read = read_d4rl(path)
        np.testing.assert_array_equal(read.actions, raw.actions)
        assert not read.terminals.any()


def test_more_rows_than_the_memory_has_bytes(tmp_path, monkeypatch):
    """Refused before they are read: a chunk of zeros takes hardly any room."""
    monkeypatch.setattr("dt_jax.data.limits.memory", lambda: 2_000_000)
    path, rows = tmp_path / "data.hdf5", 1_000_000
    with h5py.File(path, "w") as file:
        for key in RawData._fields:
            shape = (rows, 1) if key in ("observations", "actions") else (rows,)
            file.create_dataset(key, data=np.zeros(shape, "i1"), compression="gzip")
    assert path.stat().st_size < 50_000
    told = "rows end would take 0.003 GB of memory, and this machine has 0.002"
    assert_one_line(path, told)


def test_a_limit_of_more_than_the_memory_is_the_memory(raw, write_hdf5, monkeypatch):
    monkeypatch.setattr("dt_jax.data.d4rl.memory", lambda: 1000)
    monkeypatch.setattr("dt_jax.data.limits.memory", lambda: 1000)
    read = read_d4rl(write_hdf5(raw), memory_limit_gb=100)
    assert isinstance(read.observations, np.memmap)


def test_compression_that_is_not_installed(raw, tmp_path):
    path = tmp_path / "data.hdf5"
    with h5py.File(path, "w") as file:
        for key, array in raw._asdict().items():
            file.create_dataset(key, data=array, compression="gzip")
    # In each filter's record: its number, the length of its name, and that it may fail.
    gzip, other = (b"\x01\0\x08\0\x01\0", b"\x0f\x7d\x08\0\x01\0")
    assert gzip in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(gzip, other))
    assert_one_line(path, "is compressed by deflate (32015), which is not installed")


def test_a_file_that_does_not_say_where_episodes_end(raw, write_hdf5):
    told = "lacks timeouts and episode_ends: add one of them, or give episode_len"
    assert_one_line(write_hdf5(raw, timeouts=None), told)


def test_reads_the_states_of_a_simulator(raw, write_hdf5):
    wide = np.random.default_rng(0).normal(size=(71, 3))
    states = {"infos/qpos": wide, "infos/qvel": wide[:, :2].astype(np.float32)}
    qpos, qvel = read_states(write_hdf5(raw, **states))
    np.testing.assert_array_equal(qpos, wide, strict=True)
    np.testing.assert_array_equal(qvel, wide[:, :2].astype("f4").astype(float))
    assert qvel.dtype == np.float64


@pytest.mark.parametrize(
    ("key", "qpos", "told"),
    [
        ("infos/qpos", None, "lacks infos/qpos; a replay needs"),
        ("infos/qpos/x", np.zeros(71), "lacks infos/qpos; a replay needs"),
        ("infos/qpos", 1.5, "infos/qpos has shape ()"),
        ("infos/qpos", h5py.Empty("f8"), "infos/qpos has shape ()"),
        ("infos/qpos", np.zeros(71), "infos/qpos has shape (71,)"),
        ("infos/qpos", np.zeros((71, 2, 1)), "infos/qpos has shape (71, 2, 1)"),
        ("infos/qpos", np.zeros((71, 0)), "infos/qpos is empty"),
        ("infos/qpos", np.zeros((0, 2)), "infos/qpos is empty"),
        ("infos/qpos", np.full((71, 2), b"left"), "infos/qpos holds |S4"),
        ("infos/qpos", np.zeros((70, 2)), "rewards 71, infos/qpos 70, infos/qvel 71"),
        (
            "infos/qpos",
            with_nan(np.zeros((71, 2)), 13),
            "infos/qpos is NaN, infinite or too large for float32, first in row 13",
        ),
    ],
)
def test_one_line_says_what_is_wrong_with_the_states(raw, write_hdf5, key, qpos, told):
    path = write_hdf5(raw, **{"infos/qvel": np.zeros((71, 2)), key: qpos})
    assert_one_line(path, told, read_states)


def test_infos_that_are_no_group(raw, write_hdf5):
    path = write_hdf5(raw, infos=np.zeros(71))
    assert_one_line(path, "lacks infos/qpos, infos/qvel; a replay needs", read_states)


def test_rows_are_counted_over_blocks(write_hdf5):
    rows = BLOCK_ROWS + 100
    flags, rewards = np.zeros(rows, bool), np.zeros(rows, np.float32)
    rewards[BLOCK_ROWS + 3 :] = np.nan
    matrix = np.zeros((rows, 1), np.float32)
    path = write_hdf5(RawData(matrix, matrix, rewards, flags, flags))
    assert_one_line(
        path,
        f"rewards is NaN, infinite or too large for float32, first in row {rows - 97}",
    )


def test_no_such_file(tmp_path):
    assert_one_line(tmp_path / "missing.hdf5", "no such file")
    (tmp_path / "a").symlink_to(tmp_path / "a")
    assert_one_line(tmp_path / "a", "is a link to what is not there, or to itself")
    url = Path("https://example.org/data.hdf5")
    assert_one_line(url, "is no path: download the file")


def test_folder(tmp_path):
    assert_one_line(tmp_path, "is a folder")


def test_text_file(tmp_path):
    path = tmp_path / "data.hdf5"
    path.write_text("<html>404</html>" * 100)
    assert_one_line(path, "is no HDF5 or .npz file, or is damaged")


@pytest.mark.parametrize("kept", [0, 100, -100])
def test_truncated_file(raw, write_hdf5, kept):
    path = write_hdf5(raw)
    path.write_bytes(path.read_bytes()[:kept])
    assert_one_line(path, "is no HDF5 or .npz file, or is damaged")


def test_damaged_chunk(raw, tmp_path):
    path = tmp_path / "data.hdf5"
    with h5py.File(path, "w") as file:
        for key, array in raw._asdict().items():
            file.create_dataset(key, data=array, compression="gzip")
        chunk = file["actions"].id.get_chunk_info(0)
    damaged = bytearray(path.read_bytes())
    damaged[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"x" * chunk.size
    path.write_bytes(damaged)
    assert_one_line(path, "is no HDF5 or .npz file, or is damaged")


@pytest.mark.parametrize("size", [0, 4, 2000])
@pytest.mark.parametrize("key", ["actions", "terminals"])
def test_a_chunk_of_a_size_that_can_not_be(raw, tmp_path, key, size):
    """HDF5 itself would crash over the first two, and trust the last."""
    path = tmp_path / "data.hdf5"
    with h5py.File(path, "w") as file:
        for name, array in raw._asdict().items():
            file.create_dataset(name, data=array, compression="gzip", fletcher32=True)
        chunk = file[key].id.get_chunk_info(0)
    # In the index a chunk's size stands before the filters left out and its place.
    entry = struct.pack("<II", chunk.size, 0) + bytes(8)
    content = path.read_bytes()
    start = content.index(entry, content.index(b"TREE"))
    while (
        content[start + 16 : start + 64].find(struct.pack("<Q", chunk.byte_offset)) < 0
    ):
        start = content.index(entry, start + 1)
    content = content[:start] + struct.pack("<I", size) + content[start + 4 :]
    path.write_bytes(content)
    assert_one_line(path, f"(a chunk of {size} bytes)")


def test_group_in_place_of_an_array(raw, write_hdf5):
    path = write_hdf5(raw, actions=None)
    with h5py.File(path, "a") as file:
        file.create_group("actions")
    assert_one_line(path, "lacks actions")


def assert_one_line(path, told: str, read=read_d4rl):
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert told in message
    assert str(path) in message
    assert "\n" not in message
