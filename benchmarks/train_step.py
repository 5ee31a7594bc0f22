"""How long does an update take, and how long in PyTorch?

    python benchmarks/train_step.py [--baseline=torch] [--batch_sizes=64,4096] \
        [--steps_per_dispatch=10] [--rounds=5] [--seconds=4]

Prints milliseconds an update, the median of rounds in which every way has its turn, and
the ratio to PyTorch: of the same network, loss, optimiser and dropout, eager (and on a
GPU with torch.compile too, TF32 on). Ours is the program that a run calls, with
steps_per_dispatch updates in a call on data that lie on the device.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import workload
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from dt_jax.training.batches import OnDevice
from dt_jax.training.multi_step import MultiStep
from dt_jax.utils.errors import OneLineParser, exit_with_one_line
from dt_jax.utils.sharding import place


def main() -> None:
    """Measure each batch size and print the table."""
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baseline", choices=["torch"])
    parser.add_argument("--batch_sizes", default="64")
    parser.add_argument("--steps_per_dispatch", default="10", help="such as 1,10")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of a turn")
    args = parser.parse_args()
    print(f"on {jax.devices()[0].device_kind}, JAX {jax.__version__}")
    table = Table("B", "way", "ms an update", "ratio to PyTorch")
    for size in map(int, args.batch_sizes.split(",")):
        ways = {}
        for k in map(int, args.steps_per_dispatch.split(",")):
            config = workload.config(batch_size=size, steps_per_dispatch=k)
            ways[f"dt_jax, {k} in a call"] = ours(config)
        if args.baseline:
            ways |= torch_ways(config)
        seconds = workload.seconds_of(ways, args.rounds, args.seconds)
        for k in map(int, args.steps_per_dispatch.split(",")):
            seconds[f"dt_jax, {k} in a call"] /= k
        for way, times in seconds.items():
            row = [str(size), way, f"{1e3 * np.median(times):.2f}"]
            if args.baseline:
                row.append(f"{workload.ratio(times, seconds['PyTorch']):.2f}")
            table.add_row(*row)
    Console().print(table)


def ours(config: ConfigDict, transitions: int = 100_000) -> Callable[[], Any]:
    """Return what makes steps_per_dispatch updates on data of so many transitions."""
    update, state = workload.training(config)
    feed = OnDevice([workload.sampler(config, transitions)], place(config))
    dispatch = MultiStep(update, feed, config.steps_per_dispatch)
    inputs = dispatch.inputs(range(config.steps_per_dispatch))

    def call() -> None:
        nonlocal state
        state, _ = dispatch(state, inputs, config.steps_per_dispatch)
        jax.block_until_ready(state)

    return call


def torch_ways(config: ConfigDict) -> dict[str, Callable[[], Any]]:
    """Return what makes an update in PyTorch, on the same kind of device."""
    import torch
    import torch_dt

    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    batch = [
        torch.tensor(array, device=device)
        for array in workload.sampler(config).batch(0)
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
    exit_with_one_line(main)
