"""Do batches come fast enough from data that stays on the disk, and in what memory?

    python benchmarks/large_data.py [--gigabytes=4] [--seconds=5] [--folder=FOLDER]

Writes a file of so many gigabytes into FOLDER (the cache folder, if not given), with
17 + 6 numbers a transition; loads it in fresh processes, draws windows of 20 steps, and
deletes it. Linux only.

The first table: seconds to load, of them for the SHA-256, and the most memory taken
beyond what the imports take, while loading and drawing. "own" can't be taken back by
the system (RssAnon), "all" counts the file's pages too, which can.

The second: batches a second, made when they are asked for and by 4 threads ahead. A
device that makes more updates a second than that waits for its data.

- in memory, and mapped and cached: where the file takes at most half of the memory;
- mapped and cold: no page of it is in memory at the start;
- ... read ahead: the same, if the system were left to read on around each window.
"""

import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import h5py
import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from dt_jax.data.cache import cache_folder, sha256_of
from dt_jax.data.sampler import Sampler
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets import load, load_dataset
from dt_jax.training.prefetch import prefetch
from dt_jax.types import Batch
from dt_jax.utils.errors import OneLineParser, exit_with_one_line

STATE, ACTION, EPISODE, SEQ = 17, 6, 1000, 20
BATCH_SIZES, THREADS = (64, 4096), (0, 4)
TILE = 1_000_000  # rows, written again and again


def main() -> None:
    """Write the file, measure in other processes and print the tables."""
    if sys.argv[1:2] == ["measure"]:
        path, store, seconds, *fits = sys.argv[2:]
        print(json.dumps(measure(Path(path), store, float(seconds), bool(fits))))
        return
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--seconds", type=float, default=5, help="of each rate")
    parser.add_argument("--folder", type=Path, default=cache_folder())
    args = parser.parse_args()

    args.folder.mkdir(parents=True, exist_ok=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    loading = Table("data", "load s", "of it SHA-256", "loading: own MB", "all MB")
    loading.add_column("drawing: own MB")
    loading.add_column("all MB")
    drawing = Table("B", "data", "batches/s", "by 4 threads", "windows/s by 4")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "data.hdf5"
        rows = write(path, args.gigabytes)
        size = path.stat().st_size
        print(f"{rows:,} transitions, {size / 1e9:.1f} GB of {memory / 1e9:.1f} GB")
        fits = ["fits"] if size < memory / 2 else []
        for store in ("in memory", "mapped") if fits else ("mapped",):
            command = [sys.executable, __file__, "measure", path, store, args.seconds]
            answer = subprocess.check_output(
                [*map(str, command), *fits],
                env=os.environ | {"DT_JAX_DATA": folder},  # for the returns-to-go
            )
            loaded, rates = json.loads(answer)
            loading.add_row(store, *(f"{x:,.1f}" for x in loaded))
            for kind, batch_size, *rate in rates:
                told = (f"{x:,.1f}" for x in rate)
                windows = f"{batch_size * rate[-1]:,.0f}"
                drawing.add_row(str(batch_size), kind, *told, windows)
    Console(width=100).print(loading, drawing)


def write(path: Path, gigabytes: float) -> int:
    """Write a file of random transitions; return how many."""
    rng = np.random.default_rng(0)
    tiles = {
        "observations": rng.standard_normal((TILE, STATE), np.float32),
        "actions": rng.uniform(-1, 1, (TILE, ACTION)).astype(np.float32),
        "rewards": rng.standard_normal(TILE, np.float32),
        "terminals": np.zeros(TILE, bool),
        "timeouts": np.arange(1, TILE + 1) % EPISODE == 0,
    }
    tile_bytes = sum(tile.nbytes for tile in tiles.values())
    times = max(1, round(gigabytes * 1e9 / tile_bytes))
    with h5py.File(path, "w") as file:
        for key, tile in tiles.items():
            shape = (times * TILE, *tile.shape[1:])
            dataset = file.create_dataset(key, shape, tile.dtype)
            for start in range(0, shape[0], TILE):
                dataset[start : start + TILE] = tile
    return times * TILE


def measure(path: Path, store: str, seconds: float, fits: bool) -> tuple:
    """Load the file and draw from it; return a row of one table, several of the other.

    Args:
      path: the file.
      store: "in memory" or "mapped".
      seconds: of each rate.
      fits: whether the system can keep all of the file in memory.
    """
    jax.device_put(np.zeros(1)).block_until_ready()  # which takes JAX's own memory
    hashing = [0.0]

    def timed_sha256(path: Path) -> str:
        start = time.perf_counter()
        sha256 = sha256_of(path)
        hashing[0] = time.perf_counter() - start
        return sha256

    load.sha256_of = timed_sha256
    forget(path)
    before = resident()
    with most_resident() as while_loading:
        start = time.perf_counter()
        limit = 0 if store == "mapped" else 1e9
        data = load_dataset(None, str(path), memory_limit_gb=limit).trajectories
        loaded = time.perf_counter() - start
    with most_resident() as while_drawing:
        rates = list(draw(data, path, store, seconds, fits))
    taken = np.subtract([while_loading, while_drawing], before) / 1e6
    return (loaded, *hashing, *taken.ravel()), rates


def draw(
    data: Trajectories, path: Path, store: str, seconds: float, fits: bool
) -> Iterator[tuple]:
    """Yield kind, B, and batches a second with each number of threads."""
    mapped = [array for array in vars(data).values() if isinstance(array, np.memmap)]
    kinds = [store] if not mapped else ["mapped, cold", "mapped, cold, read ahead"]
    if mapped and fits:
        kinds.insert(0, "mapped, cached")
    for batch_size in BATCH_SIZES:
        sampler = Sampler(
            data,
            batch_size=batch_size,
            seq_len=SEQ,
            reward_scale=1.0,
            seed=0,
            state_mean=data.state_mean,
            state_std=data.state_std,
        )
        for kind in kinds:
            ahead = kind.endswith("read ahead")
            for array in mapped:
                array._mmap.madvise(mmap.MADV_NORMAL if ahead else mmap.MADV_RANDOM)
            rates = []
            for threads in THREADS:
                if "cold" in kind:
                    for array in mapped:
                        array._mmap.madvise(mmap.MADV_DONTNEED)
                    forget(path)
                elif mapped:
                    for array in mapped:
                        touch(array)
                rates.append(rate(sampler, threads, seconds))
            yield kind, batch_size, *rates


def touch(array: np.ndarray) -> None:
    """Read all of it."""
    for start in range(0, len(array), TILE):
        array[start : start + TILE].max()


def rate(sampler: Sampler, threads: int, seconds: float) -> float:
    """Return batches a second, on the device."""
    made = []

    def make(step: int) -> Batch:
        batch = sampler.batch(step)
        made.append(step)
        return batch

    start = time.perf_counter()
    with closing(prefetch(make, range(10**9), threads)) as batches:
        for _ in batches:
            if (passed := time.perf_counter() - start) > seconds:
                return len(made) / passed
    raise AssertionError("there are batches enough")


def forget(path: Path) -> None:
    """Have the system drop the pages of `path` and of all files that are open."""
    with path.open("rb"):
        for number in map(int, os.listdir("/proc/self/fd")):
            with suppress(OSError):  # no ordinary file
                os.fdatasync(number)
                os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def most_resident() -> Iterator[list[int]]:
    """Yield what `resident` tells, at its highest until the end."""
    most, done = resident(), threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[:] = map(max, most, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def resident() -> list[int]:
    """Return this process's resident bytes: without files' pages, and with them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":") for line in lines)
    return [1024 * int(fields[key].split()[0]) for key in ("RssAnon", "VmRSS")]


if __name__ == "__main__":
    exit_with_one_line(main)
