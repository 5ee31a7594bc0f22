"""Does the data keep up with the updates, and what memory does it take?

    python benchmarks/data.py [--batch_sizes=64] [--rounds=5] [--seconds=4]
    python benchmarks/data.py --transitions=1000000 [--folder=FOLDER]

The first prints updates a second with one constant batch that lies on the device, with
batches gathered on the device, and with batches gathered on the host by 4 threads, and
the ratios to the constant batch: what is missing to 1 is spent on data.

The second (Linux) writes a file of so many transitions, and trains on it and on one of
a tenth in processes of their own: by how much more memory the larger one takes, over by
how much more data it has. Beside a GPU it is the host's memory that is meant.
"""

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
from dt_jax.datasets import load_dataset
from dt_jax.training.batches import Feed, OnDevice, OnHost, make_feed
from dt_jax.training.multi_step import Dispatch
from dt_jax.training.prefetch import prefetch
from dt_jax.types import Batch
from dt_jax.utils.errors import OneLineParser, exit_with_one_line
from dt_jax.utils.sharding import Placement, place

NUMBERS = workload.STATE + workload.ACTION + 1  # float32, of a transition


def main() -> None:
    """Measure one or the other."""
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(sys.argv[2])))
        return
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_sizes", default="64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of a turn")
    parser.add_argument("--transitions", type=int, help="measure memory instead")
    parser.add_argument("--folder", type=Path, help="for the files; the system's")
    args = parser.parse_args()
    print(f"on {jax.devices()[0].device_kind}, JAX {jax.__version__}")
    if args.transitions:
        Console().print(memory(args.transitions, args.folder))
        return
    table = Table("B", "data", "updates/s", "ratio")
    for size in map(int, args.batch_sizes.split(",")):
        config = workload.config(batch_size=size)
        sampler, placement = workload.sampler(config), place(config)
        feeds: dict[str, Feed] = {
            "one constant batch": Constant(sampler, placement),
            "on the device": OnDevice([sampler], placement),
            "on the host": OnHost([sampler], placement),
        }
        ways = {name: updates(config, feed) for name, feed in feeds.items()}
        seconds = workload.seconds_of(ways, args.rounds, args.seconds)
        constant = seconds["one constant batch"]
        for name, times in seconds.items():
            rate = config.steps_per_dispatch / np.median(times)
            share = workload.ratio(constant, times)
            table.add_row(str(size), name, f"{rate:.2f}", f"{share:.3f}")
    Console().print(table)


class Constant:
    """The same batch again and again."""

    def __init__(self, sampler: Sampler, placement: Placement):
        self.placement = placement
        self.data = placement.copy_to_all(sampler.batch(0))
        self._nothing = np.zeros(sampler.batch_size, np.int32)

    def inputs(self, step: int) -> np.ndarray:
        """Return nothing of interest."""
        return self._nothing

    def batch(self, data: Batch, inputs: Any) -> Batch:
        """Return the batch."""
        return data


def updates(config: ConfigDict, feed: Feed) -> Callable[[], Any]:
    """Return what makes the next steps_per_dispatch updates, as a run makes them."""
    k = config.steps_per_dispatch
    update, state = workload.training(config)
    dispatch = Dispatch(update, feed, k)
    calls = (range(first, first + k) for first in count(step=k))
    inputs = prefetch(dispatch.inputs, calls, config.num_workers)

    def call() -> None:
        nonlocal state
        state, _ = dispatch(state, next(inputs), k)
        jax.block_until_ready(state)

    return call


def memory(transitions: int, folder: Path | None) -> Table:
    """Train on two files and return the table of what they take."""
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
    table = Table("memory of the process", "more MB", "times the data")
    for when in taken[0]:
        difference = taken[0][when] - taken[1][when]
        table.add_row(when, f"{difference / 1e6:.0f}", f"{difference / more:.2f}")
    table.caption = f"{more / 1e6:.0f} MB more data: {NUMBERS} numbers a transition"
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
    """Train on a file, and return the bytes that this process holds."""
    config = workload.config(embedding_dim=16, num_layers=1)
    process = psutil.Process()
    taken = {}
    trajectories = load_dataset(None, path).trajectories
    taken["loaded"] = process.memory_info().rss
    sampler = Sampler(
        trajectories,
        batch_size=config.batch_size,
        seq_len=config.seq_len,
        reward_scale=config.reward_scale,
        seed=config.train_seed,
        state_mean=trajectories.state_mean,
        state_std=trajectories.state_std,
    )
    feed = make_feed([sampler], place(config), config.device_memory_share)
    assert isinstance(feed, OnDevice)
    update, state = workload.training(config)
    dispatch = Dispatch(update, feed, config.steps_per_dispatch)
    calls = (range(first, first + 10) for first in range(0, 500, 10))
    with closing(prefetch(dispatch.inputs, calls, config.num_workers)) as inputs:
        for each in inputs:
            state, _ = dispatch(state, each, 10)
    jax.block_until_ready(state)
    taken["training"] = process.memory_info().rss
    return taken


if __name__ == "__main__":
    exit_with_one_line(main)
