"""Memory-mapped data: memory stays within a limit, and batches are the same."""

import os
import resource
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest

from dt_jax.data.d4rl import read_d4rl
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.sampler import Sampler
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets import read_dataset
from dt_jax.types import Batch
from dt_jax.utils.errors import UserError

ROWS, EPISODE = 1_500_000, 1000
ALLOWED = 32_000_000  # bytes; the transitions take 144,000,000 and more


def to_hdf5(path: Path, arrays: dict, **options):
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array, **options)


def to_gzip(path: Path, arrays: dict):
    to_hdf5(path, arrays, compression="gzip", compression_opts=1, chunks=True)


def to_npz(path: Path, arrays: dict):
    np.savez(path, **arrays)


def to_compressed_npz(path: Path, arrays: dict):
    # Like np.savez_compressed, which has no compression level.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array)


def wide(arrays: dict) -> dict:
    return {
        key: array.astype(np.float64) if array.dtype == np.float32 else array
        for key, array in arrays.items()
    }


# Functions that write a dataset to a path, by format.
FORMATS = {
    "contiguous.hdf5": to_hdf5,
    "float64.hdf5": lambda path, arrays: to_hdf5(path, wide(arrays)),
    "gzip.hdf5": to_gzip,
    "stored.npz": to_npz,
    "compressed.npz": to_compressed_npz,
}
UNPACKED = {"gzip.hdf5", "compressed.npz"}


def transitions(rows: np.ndarray) -> dict:
    """Return the exact content of `rows`, of any shape, of the large file."""
    step = rows % EPISODE
    columns = [rows, *(rows // 64 + j for j in range(16))]
    return {
        "observations": np.stack(columns, -1).astype(np.float32),
        "actions": (((rows[..., None] + np.arange(6)) % 256) / 128 - 1).astype("f4"),
        "rewards": (rows % 4).astype(np.float32),
        "terminals": np.zeros(rows.shape, bool),
        "timeouts": step == EPISODE - 1,
    }


def returns_to_go(rows: np.ndarray) -> np.ndarray:
    """Return the sum of rewards, 0 1 2 3 0 1 2 3 ..., to the end of the episode."""
    step = rows % EPISODE
    received = step // 4 * 6 + np.array([0, 0, 1, 3])[step % 4]
    return np.float32(EPISODE // 4 * 6 - received)


def status(field: str) -> int:
    """Return a field of this process's memory in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(field))
    return 1024 * int(line.split()[1])


def check_within_limit(path: str, memory_limit_gb: str):
    """Load and sample with little memory, in a process of its own."""
    # All writable memory counts, files mapped for reading do not.
    limit = status("VmData") + ALLOWED
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    before = status("RssAnon")
    store = read_dataset(
        None, path, episode_len=EPISODE, memory_limit_gb=float(memory_limit_gb)
    ).trajectories
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    sampler = Sampler(
        store,
        Normalizer(zero, one, zero, one),
        batch_size=64,
        context_len=20,
        seed=0,
        fields=("states", "actions", "returns_to_go", "mask"),
    )
    for step in range(20):
        indices = sampler.indices(step) if step else np.array([ROWS - 1])
        batch = sampler.gather(indices)
        rows = indices[:, None] + np.arange(20)  # [B, T]
        mask = rows // EPISODE == rows[:, :1] // EPISODE
        expected = transitions(rows)
        for drawn, values in [
            (batch.states, expected["observations"]),
            (batch.actions, expected["actions"]),
            (batch.returns_to_go, returns_to_go(rows)),
            (batch.mask, mask.astype(np.float32)),
        ]:
            values[~mask] = 0
            assert (drawn == values).all()
    assert np.isclose(store.state_mean[0], (ROWS - 1) / 2, rtol=1e-6)
    assert np.isclose(store.state_std[0], ROWS / np.sqrt(12), rtol=1e-6)
    assert status("RssAnon") - before < ALLOWED


def run_within_limit(path: Path, cache: Path, memory_limit_gb: float = 0.01):
    """Run `check_within_limit`; return the finished process."""
    command = [sys.executable, __file__, str(path), str(memory_limit_gb)]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"DT_JAX_DATA": str(cache), "PYTHONPATH": root}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def large():
    return transitions(np.arange(ROWS))


needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux enforces RLIMIT_DATA"
)


@needs_linux
@pytest.mark.parametrize("name", FORMATS)
def test_data_larger_than_the_memory_limit(large, tmp_path, name):
    path, cache = tmp_path / name, tmp_path / "cache"
    if name == "stored.npz":  # then only episode_len defines the episodes
        large = {key: array for key, array in large.items() if key != "timeouts"}
    FORMATS[name](path, large)
    done = run_within_limit(path, cache)
    assert done.returncode == 0, done.stderr
    assert "memory-mapping them" in done.stderr
    unpacked = list(cache.glob("unpacked/*.npy"))
    assert len(unpacked) == (3 if name in UNPACKED else 0)
    assert [file for file in cache.iterdir() if file.is_file()] == []


@needs_linux
def test_the_limit_is_enforced(large, tmp_path):
    """Reading the data into memory exceeds the limit of the test above."""
    path = tmp_path / "contiguous.hdf5"
    to_hdf5(path, large)
    done = run_within_limit(path, tmp_path / "cache", memory_limit_gb=1)
    assert "MemoryError" in done.stderr


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def arrays(raw):
    """A dataset whose float64 observations change when rounded to float32."""
    noise = np.random.default_rng(0).normal(size=raw.observations.shape)
    return raw._asdict() | {"observations": 1e3 + noise}


def as_float32(arrays: dict) -> dict:
    return arrays | {"observations": arrays["observations"].astype(np.float32)}


def by_column(arrays: dict) -> dict:
    return {key: np.asfortranarray(array) for key, array in arrays.items()}


def swapped(arrays: dict) -> dict:
    return {k: v.astype(v.dtype.newbyteorder(">")) for k, v in arrays.items()}


def at_odd_addresses(path: Path, arrays: dict):
    """Write an archive with unaligned numbers; the first name shifts them."""
    for filler in ("x", "xx"):
        np.savez(path, **{filler: np.zeros(0)}, **as_float32(arrays))
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("observations.npy").header_offset % 2:
                return


def with_user_block(path: Path, arrays: dict):
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, array in arrays.items():
            file[key] = array


OTHER_LAYOUTS = {
    "as float64.hdf5": to_hdf5,
    "float64.npz": to_npz,
    "by column.npz": lambda path, arrays: to_npz(path, by_column(arrays)),
    "by column, compressed.npz": (
        lambda path, arrays: to_compressed_npz(path, by_column(arrays))
    ),
    "odd addresses.npz": at_odd_addresses,
    "big-endian.hdf5": lambda path, arrays: to_hdf5(path, swapped(arrays)),
    "user block.hdf5": with_user_block,
}


def load(path: Path, memory_limit_gb: float) -> Trajectories:
    return read_dataset(None, str(path), memory_limit_gb=memory_limit_gb).trajectories


def draw(store: Trajectories) -> list[bytes]:
    normalizer = Normalizer(
        store.state_mean,
        store.state_std,
        action_center=np.zeros(2, np.float32),
        action_scale=np.array([2, 0.5], np.float32),
        reward_scale=0.1,
    )
    sampler = Sampler(
        store, normalizer, batch_size=64, context_len=6, seed=3, fields=Batch._fields
    )
    return [array.tobytes() for step in range(5) for array in sampler.batch(step)]


@pytest.mark.parametrize("name", FORMATS | OTHER_LAYOUTS)
def test_mapped_data_equals_data_in_memory_bit_for_bit(arrays, tmp_path, cache, name):
    path = tmp_path / name
    if name in FORMATS:
        FORMATS[name](path, as_float32(arrays))
    else:
        OTHER_LAYOUTS[name](path, arrays)
    in_memory, mapped = load(path, 1), load(path, 0)
    if name == "odd addresses.npz":
        assert not mapped.observations.flags.aligned
    for field in fields(Trajectories):
        ours, theirs = (getattr(store, field.name) for store in (mapped, in_memory))
        if field.name in ("observations", "actions", "rewards", "returns_to_go"):
            assert isinstance(ours, np.memmap)
            assert not isinstance(theirs, np.memmap)
            assert not ours.flags.writeable
        np.testing.assert_array_equal(
            np.asarray(ours, np.asarray(theirs).dtype), theirs
        )
    assert draw(mapped) == draw(in_memory)
    for ours, theirs in zip(mapped.hold_out(0.3), in_memory.hold_out(0.3), strict=True):
        assert draw(ours) == draw(theirs)


@pytest.mark.parametrize("name", sorted(UNPACKED))
def test_file_is_unpacked_once(raw, tmp_path, cache, capsys, name):
    path = tmp_path / name
    FORMATS[name](path, raw._asdict())
    first = draw(load(path, 0))
    assert capsys.readouterr().err.count("unpacking") == 3
    files = {file: file.stat().st_mtime_ns for file in cache.glob("unpacked/*.npy")}
    assert len(files) == 3
    assert draw(load(path, 0)) == first
    read_d4rl(path, memory_limit_gb=0)  # also without a given SHA-256
    assert "unpacking" not in capsys.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in files} == files

    for file, end in zip(sorted(files), (b"", b"x"), strict=False):
        file.write_bytes(file.read_bytes()[:-1] + end)  # truncated, and changed
    assert draw(load(path, 0)) == first
    assert capsys.readouterr().err.count("unpacking") == 2

    FORMATS[name](path, raw._asdict() | {"rewards": raw.rewards + 1})
    read = read_d4rl(path, memory_limit_gb=0)
    np.testing.assert_array_equal(read.rewards, raw.rewards + 1)
    assert len(list(cache.glob("unpacked/*.npy"))) == 6


@needs_linux
def test_sampled_arrays_are_mapped_without_read_ahead(raw, tmp_path, cache):
    """The kernel lists "rr", random read, among the flags of such a mapping."""
    path = tmp_path / "a.hdf5"
    to_hdf5(path, raw._asdict())
    store = load(path, 0)

    def flags() -> list[bool]:
        maps = Path("/proc/self/smaps").read_text().split("VmFlags:")
        ours = [i for i, text in enumerate(maps) if str(tmp_path) in text]
        return ["rr" in maps[i + 1].splitlines()[0].split() for i in ours]

    assert flags() == [False] * 4
    draw(store)
    assert sum(flags()) == 4


@contextmanager
def files_of_at_most(size: int):
    """Simulate a full disk; Python ignores the signal of the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["contiguous.hdf5", "gzip.hdf5", "compressed.npz"])
def test_full_disk_is_reported_with_the_cache_folder(tmp_path, cache, name):
    """It stores unpacked arrays and returns-to-go."""
    path = tmp_path / name
    FORMATS[name](path, transitions(np.arange(10_000)))
    with files_of_at_most(20_000), pytest.raises(UserError) as caught:
        load(path, 0)
    assert str(caught.value).startswith(f"{cache}: File too large; ")
    assert "set DT_JAX_DATA to another folder" in str(caught.value)
    assert [file for file in cache.rglob("*") if file.is_file()] == []


if __name__ == "__main__":
    check_within_limit(*sys.argv[1:])
