"""Speed and memory of data that stays on the disk.

    python benchmarks/large_data.py [--gigabytes=4] [--seconds=5] [--folder=FOLDER]

Writes a file of that many gigabytes to FOLDER (default: the cache folder), with 17 + 6
numbers per transition; loads it in fresh processes, draws windows of 20 steps, and
deletes it. Linux only.

The first table has seconds to load, the share of SHA-256, and the peak memory beyond
that of the imports, while loading and drawing. "own" cannot be reclaimed by the system
(RssAnon); "all" includes pages of the file, which can.

The second has batches per second, made on request and by 4 prefetching threads. A
device that makes more updates per second waits for its data.

- in memory, and mapped and cached: if the file takes at most half of the memory;
- mapped and cold: no page of it is in memory at the start;
- ... read ahead: the same, with the system's read-ahead around each window.
"""

import argparse
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
import workload
from rich.console import Console
from rich.table import Table

from dt_jax.data.cache import cache_folder, sha256_of
from dt_jax.data.sampler import Sampler
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets import load, read_dataset
from dt_jax.training.batches import prefetch
from dt_jax.types import Batch

STATE, ACTION, EPISODE = 17, 6, 1000
BATCH_SIZES, THREADS = (64, 4096), (0, 4)
TILE = 1_000_000  # rows, repeated


def main() -> None:
    """Write the file, measure in separate processes and print the tables."""
    if sys.argv[1:2] == ["measure"]:
        path, store, seconds, *fits = sys.argv[2:]
        print(json.dumps(measure(Path(path), store, float(seconds), bool(fits))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--seconds", type=float, default=5, help="per rate")
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
                cells = (f"{x:,.1f}" for x in rate)
                windows = f"{batch_size * rate[-1]:,.0f}"
                drawing.add_row(str(batch_size), kind, *cells, windows)
    Console(width=100).print(loading, drawing)


def write(path: Path, gigabytes: float) -> int:
    """Write a file of random transitions and return their number."""
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
    """Load the file and draw from it; return a row of the first table, and rates.

    Args:
      path: the file.
      store: "in memory" or "mapped".
      seconds: per rate.
      fits: whether the system can cache the whole file.
    """
    jax.device_put(np.zeros(1)).block_until_ready()  # allocates JAX's own memory
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
        data = read_dataset(None, str(path), memory_limit_gb=limit).trajectories
        loaded = time.perf_counter() - start
    with most_resident() as while_drawing:
        rates = list(draw(data, path, store, seconds, fits))
    taken = np.subtract([while_loading, while_drawing], before) / 1e6
    return (loaded, *hashing, *taken.ravel()), rates


def draw(
    data: Trajectories, path: Path, store: str, seconds: float, fits: bool
) -> Iterator[tuple]:
    """Yield kind, B, and batches per second for each number of threads."""
    mapped = [array for array in vars(data).values() if isinstance(array, np.memmap)]
    kinds = [store] if not mapped else ["mapped, cold", "mapped, cold, read ahead"]
    if mapped and fits:
        kinds.insert(0, "mapped, cached")
    for batch_size in BATCH_SIZES:
        sampler = workload.sampler_of(data, workload.config(batch_size=batch_size))
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
    """Read the whole array."""
    for start in range(0, len(array), TILE):
        array[start : start + TILE].max()


def rate(sampler: Sampler, threads: int, seconds: float) -> float:
    """Return batches per second, on the device."""
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
    raise AssertionError("unreachable: the batches never run out")


def forget(path: Path) -> None:
    """Drop the cached pages of `path` and of all open files."""
    with path.open("rb"):
        for number in map(int, os.listdir("/proc/self/fd")):
            with suppress(OSError):  # not a regular file
                os.fdatasync(number)
                os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def most_resident() -> Iterator[list[int]]:
    """Yield the peak of `resident`, updated until the end."""
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
    """Return the resident bytes of this process, without and with pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":") for line in lines)
    return [1024 * int(fields[key].split()[0]) for key in ("RssAnon", "VmRSS")]


if __name__ == "__main__":
    main()
