"""Runs of launch.py on bad input, and checks of how it fails."""

import resource
import time

import h5py
import numpy as np
from command import refusal, run

TINY = [
    "--config=configs/own_data.py",
    "--config.embedding_dim=8",
    "--config.num_layers=1",
    "--config.seq_len=3",
    "--config.batch_size=4",
    "--config.update_steps=2",
    "--config.eval_every=2",
]
ROWS, EPISODE = 60, 15
MAX_MEMORY, MAX_SECONDS = 1 << 30, 120  # of a program that refuses a file

SUFFIXES = (".npy", ".sha256", ".lock")  # of files that may stay in a cache folder
CORRUPT = ("corrupt, or not an HDF5 or .npz file", "download it again")
INCOMPLETE = ("fewer or more numbers are stored", "finish recording")


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


class Launch:
    """launch.py with its own run folder and cache folder."""

    def __init__(self, folder):
        self.folder = folder
        self.workdir, self.cache = folder / "run", folder / "cache"
        self.environment = {"DT_JAX_DATA": str(self.cache)}

    def command(self, *arguments):
        return ("launch.py", *TINY, *arguments, f"--workdir={self.workdir}")

    def refuses(self, parts, *arguments):
        """Check that it fails quickly, in one line, and without leaving files."""
        start, before = time.monotonic(), _peak_memory_of_children()
        line = refusal(*self.command(*arguments), **self.environment)
        assert time.monotonic() - start < MAX_SECONDS
        assert _peak_memory_of_children() <= max(before, MAX_MEMORY)
        assert line.startswith("launch.py: error: ")
        for part in parts:
            assert part in line
        assert not self.workdir.exists()
        assert files_in(self.cache) == []

    def refuses_file(self, parts, path, *arguments):
        self.refuses((str(path), *parts), f"--config.data_path={path}", *arguments)

    def runs(self, *arguments):
        """Check that it succeeds; return its stderr without progress lines."""
        status, _, err = run(*self.command(*arguments), **self.environment)
        assert status == 0, err
        assert (self.workdir / "metrics.jsonl").exists()
        lines = err.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("step "))


def files_in(folder):
    return [path for path in folder.rglob("*") if not path.is_dir()]


def _peak_memory_of_children():
    return 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


WRITERS = {"hdf5": to_hdf5, "npz": to_npz}


def with_value(key, row, value):
    array = arrays()[key].astype(np.float64)
    array[row] = value
    return {key: array}
