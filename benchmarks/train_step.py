"""The time of an update, compared with PyTorch.

    python benchmarks/train_step.py [--baseline=torch] [--batch_sizes=64,4096] \
        [--steps_per_dispatch=10] [--rounds=5] [--seconds=4]

Prints milliseconds per update, the median of rounds in which all variants take turns,
and the ratio to PyTorch with the same network, loss, optimiser and dropout, eager (on a
GPU also with torch.compile, TF32 on). dt_jax runs the program of a real run, with
steps_per_dispatch updates per call on data on the device.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import workload
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from dt_jax.training.batches import DeviceBatches
from dt_jax.training.multi_step import MultiStep


def main() -> None:
    """Measure each batch size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baseline", choices=["torch"])
    parser.add_argument("--batch_sizes", default="64")
    parser.add_argument("--steps_per_dispatch", default="10", help="such as 1,10")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="per turn")
    args = parser.parse_args()
    print(f"on {jax.devices()[0].device_kind}, JAX {jax.__version__}")
    table = Table("B", "variant", "ms per update", "ratio to PyTorch")
    for size in map(int, args.batch_sizes.split(",")):
        ways = {}
        for k in map(int, args.steps_per_dispatch.split(",")):
            config = workload.config(batch_size=size, steps_per_dispatch=k)
            ways[f"dt_jax, {k} per call"] = ours(config)
        if args.baseline:
            ways |= torch_ways(config)
        seconds = workload.seconds_of(ways, args.rounds, args.seconds)
        for k in map(int, args.steps_per_dispatch.split(",")):
            seconds[f"dt_jax, {k} per call"] /= k
        for way, times in seconds.items():
            row = [str(size), way, f"{1e3 * np.median(times):.2f}"]
            if args.baseline:
                row.append(f"{workload.ratio(times, seconds['PyTorch']):.2f}")
            table.add_row(*row)
    Console().print(table)


def ours(config: ConfigDict, transitions: int = 100_000) -> Callable[[], Any]:
    """Return a function that makes steps_per_dispatch updates of all seeds."""
    update, state = workload.training(config)
    samplers = [workload.sampler(config, transitions)] * config.num_seeds
    batches = DeviceBatches(samplers, workload.sharding(config))
    multi_step = MultiStep(update, batches, config.steps_per_dispatch)
    inputs = multi_step.inputs(range(config.steps_per_dispatch))

    def call() -> None:
        nonlocal state
        state, _ = multi_step(state, inputs, config.steps_per_dispatch)
        jax.block_until_ready(state)

    return call


def torch_ways(config: ConfigDict) -> dict[str, Callable[[], Any]]:
    """Return functions that make an update in PyTorch on the same kind of device."""
    import torch
    import torch_dt

    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    batch = [
        torch.tensor(array, device=device)
        for array in workload.sampler(config).batch(0)[:5]  # CORL's fields
    ]
    model = torch_dt.DecisionTransformer(config, workload.STATE, workload.ACTION)
    model = model.to(device)

    def synchronised(update: Callable[[Any], Any]) -> Callable[[], Any]:
        return lambda: update(batch).item()

    ways = {"PyTorch": synchronised(torch_dt.make_update(model, config))}
    if device == "cuda":
        compiled = torch_dt.make_update(torch.compile(model), config)
        ways["PyTorch, compiled"] = synchronised(compiled)
    return ways


if __name__ == "__main__":
    main()
