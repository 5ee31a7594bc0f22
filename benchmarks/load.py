"""Time and memory to load a dataset of 1,000,000 transitions.

    python benchmarks/load.py

Each file is read in a fresh process. "arrays" is the size of the loaded arrays; "peak"
is the peak memory of the process while loading, minus its memory before. Linux only:
the peak is read from /proc.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

ROWS, STATE, ACTION = 1_000_000, 17, 6
EPISODE = 1000


def main() -> None:
    """Write the files, load each one and print a table."""
    if len(sys.argv) == 2:
        measure(Path(sys.argv[1]))
        return
    print(f"{'file':<24}{'seconds':>9}{'arrays MB':>11}{'peak MB':>9}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for name, dtype, episode, options in [
            ("float32", np.float32, EPISODE, {}),
            ("float32 gzip", np.float32, EPISODE, {"compression": "gzip"}),
            ("float64 gzip", np.float64, EPISODE, {"compression": "gzip"}),
            ("float32, 1-step episodes", np.float32, 1, {}),
        ]:
            path = Path(folder) / "data.hdf5"
            write(path, dtype, episode, options)
            answer = subprocess.check_output([sys.executable, __file__, path])
            seconds, arrays, peak = json.loads(answer)
            print(
                f"{name:<24}{seconds:>9.2f}{arrays / 1e6:>11.0f}"
                f"{peak / 1e6:>9.0f}{peak / arrays:>7.2f}"
            )


def write(path: Path, dtype: type, episode: int, options: dict) -> None:
    """Write a file of random transitions."""
    random = np.random.default_rng(0)
    timeouts = np.arange(1, ROWS + 1) % episode == 0
    with h5py.File(path, "w") as file:

        def put(key: str, values: np.ndarray) -> None:
            file.create_dataset(key, data=values, **options)

        put("observations", random.standard_normal((ROWS, STATE)).astype(dtype))
        put("actions", random.uniform(-1, 1, (ROWS, ACTION)).astype(dtype))
        put("rewards", random.standard_normal(ROWS).astype(dtype))
        put("terminals", np.zeros(ROWS, bool))
        put("timeouts", timeouts)


def measure(path: Path) -> None:
    """Load `path` and print seconds, bytes of the arrays, and peak bytes."""
    from dt_jax.datasets import read_dataset

    before = resident("VmRSS")
    start = time.perf_counter()
    store = read_dataset(None, str(path)).trajectories
    seconds = time.perf_counter() - start
    peak = resident("VmHWM") - before
    arrays = sum(a.nbytes for a in vars(store).values() if isinstance(a, np.ndarray))
    print(json.dumps([seconds, arrays, peak]))


def resident(field: str) -> int:
    """Return the current (VmRSS) or peak (VmHWM) resident bytes of this process."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
