"""The cost of several seeds in one program, relative to one seed.

    python benchmarks/seeds.py [--seeds=1,4,16] [--batch_size=64] [--rounds=5]

Prints milliseconds per update of all seeds, the ratio to one seed, and that ratio per
seed: below 1, seeds in one program are faster than one after the other.
"""

import argparse

import jax
import numpy as np
import train_step
import workload
from rich.console import Console
from rich.table import Table


def main() -> None:
    """Measure each number of seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="1,4,16")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="per turn")
    args = parser.parse_args()
    print(f"on {jax.devices()[0].device_kind}, JAX {jax.__version__}")
    numbers = [1, *(n for n in map(int, args.seeds.split(",")) if n > 1)]
    configs = {
        str(n): workload.config(batch_size=args.batch_size, num_seeds=n)
        for n in numbers
    }
    ways = {n: train_step.ours(config) for n, config in configs.items()}
    seconds = workload.seconds_of(ways, args.rounds, args.seconds)
    table = Table("seeds", "ms per update", "ratio to one seed", "per seed")
    for n in numbers:
        times = seconds[str(n)] / configs[str(n)].steps_per_dispatch
        ratio = workload.ratio(seconds[str(n)], seconds["1"])
        row = f"{1e3 * np.median(times):.1f}", f"{ratio:.2f}", f"{ratio / n:.2f}"
        table.add_row(str(n), *row)
    Console().print(table)


if __name__ == "__main__":
    main()
