"""The cost of the data pipeline: time per update, and memory.

    python benchmarks/data.py [--batch_sizes=64] [--rounds=5] [--seconds=4]
    python benchmarks/data.py --transitions=1000000 [--folder=FOLDER]

The first prints updates per second with one constant batch on the device, with batches
gathered on the device, and with batches gathered on the host by 4 threads, and the
ratios to the constant batch: the difference to 1 is spent on data.

The second (Linux) writes a file of that many transitions and trains on it and on a
tenth of it, in separate processes: the additional memory divided by the additional
data. Next to a GPU this is the host's memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np
import psutil
import workload
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from dt_jax.data.sampler import Sampler
from dt_jax.datasets import read_dataset
from dt_jax.training.batches import (
    Batches,
    DeviceBatches,
    HostBatches,
    make_batches,
    prefetch,
)
from dt_jax.training.multi_step import MultiStep
from dt_jax.types import Batch
from dt_jax.utils.sharding import RunSharding

NUMBERS = workload.STATE + workload.ACTION + 1  # float32 values per transition


def main() -> None:
    """Measure time or memory."""
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(sys.argv[2])))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_sizes", default="64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="per turn")
    parser.add_argument("--transitions", type=int, help="measure memory with this many")
    parser.add_argument(
        "--folder", type=Path, help="for the files (default: the system's)"
    )
    args = parser.parse_args()
    print(f"on {jax.devices()[0].device_kind}, JAX {jax.__version__}")
    if args.transitions:
        Console().print(memory(args.transitions, args.folder))
        return
    table = Table("B", "data", "updates/s", "ratio")
    for size in map(int, args.batch_sizes.split(",")):
        config = workload.config(batch_size=size)
        sampler, sharding = workload.sampler(config), workload.sharding(config)
        variants: dict[str, Batches] = {
            "one constant batch": ConstantBatch(sampler, sharding),
            "on the device": DeviceBatches([sampler], sharding),
            "on the host": HostBatches([sampler], sharding),
        }
        ways = {name: updates(config, each) for name, each in variants.items()}
        seconds = workload.seconds_of(ways, args.rounds, args.seconds)
        constant = seconds["one constant batch"]
        for name, times in seconds.items():
            rate = config.steps_per_dispatch / np.median(times)
            share = workload.ratio(constant, times)
            table.add_row(str(size), name, f"{rate:.2f}", f"{share:.3f}")
    Console().print(table)


class ConstantBatch:
    """The same batch for every update."""

    def __init__(self, sampler: Sampler, sharding: RunSharding):
        self.sharding = sharding
        self.dataset = sharding.replicate(sampler.batch(0))
        self._nothing = np.zeros(sampler.batch_size, np.int32)

    def inputs(self, step: int) -> np.ndarray:
        """Return numbers that are sent, as window indices would be, and not used."""
        return self._nothing

    def batch(self, dataset: Batch, inputs: Any) -> Batch:
        """Return the batch."""
        return dataset


def updates(config: ConfigDict, batches: Batches) -> Callable[[], Any]:
    """Return a function that makes the next steps_per_dispatch updates."""
    k = config.steps_per_dispatch
    update, state = workload.training(config)
    multi_step = MultiStep(update, batches, k)
    calls = (range(first, first + k) for first in count(step=k))
    inputs = prefetch(multi_step.inputs, calls, config.num_workers)

    def call() -> None:
        nonlocal state
        state, _ = multi_step(state, next(inputs), k)
        jax.block_until_ready(state)

    return call


def memory(transitions: int, folder: Path | None) -> Table:
    """Train on two files and return the table of their memory."""
    taken = []
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        for rows in (transitions, transitions // 10):
            path = Path(temporary) / f"{rows}.hdf5"
            write(path, rows)
            answer = subprocess.check_output(
                [sys.executable, __file__, "measure", str(path)]
            )
            taken.append(json.loads(answer))
    more = 4 * NUMBERS * (transitions - transitions // 10)
    table = Table("memory of the process", "additional MB", "ratio to the data")
    for when in taken[0]:
        difference = taken[0][when] - taken[1][when]
        table.add_row(when, f"{difference / 1e6:.0f}", f"{difference / more:.2f}")
    table.caption = f"{more / 1e6:.0f} MB more data: {NUMBERS} numbers per transition"
    return table


def write(path: Path, rows: int) -> None:
    """Write random episodes of 1000 steps."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for name, size in [
            ("observations", (rows, workload.STATE)),
            ("actions", (rows, workload.ACTION)),
            ("rewards", (rows,)),
        ]:
            file[name] = rng.uniform(-1, 1, size).astype(np.float32)
        file["terminals"] = np.zeros(rows, bool)
        file["timeouts"] = np.arange(1, rows + 1) % workload.EPISODE == 0


def measure(path: str) -> dict[str, int]:
    """Train on a file and return the resident bytes of this process."""
    config = workload.config(embedding_dim=16, num_layers=1)
    process = psutil.Process()
    taken = {}
    trajectories = read_dataset(None, path).trajectories
    taken["loaded"] = process.memory_info().rss
    samplers = [workload.sampler_of(trajectories, config)]
    share = config.device_memory_share
    batches = make_batches(samplers, workload.sharding(config), share)
    assert isinstance(batches, DeviceBatches)
    update, state = workload.training(config)
    multi_step = MultiStep(update, batches, config.steps_per_dispatch)
    calls = (range(first, first + 10) for first in range(0, 500, 10))
    with closing(prefetch(multi_step.inputs, calls, config.num_workers)) as inputs:
        for each in inputs:
            state, _ = multi_step(state, each, 10)
    jax.block_until_ready(state)
    taken["training"] = process.memory_info().rss
    return taken


if __name__ == "__main__":
    main()
