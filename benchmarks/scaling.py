"""Cost against the number of transitions, the window, the batch size and episodes.

    python benchmarks/scaling.py [--rounds=3] [--seconds=3] [--picture=scaling.png]

Varies one quantity at a time from CORL's sizes: an update against the transitions of
the dataset, against T and against B, and a timestep of an evaluation (of 100, including
the reset of the environments) against its episodes. Prints a table and draws a plot.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import train_step
import workload
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from rich.console import Console
from rich.table import Table
from rollout import SPEC, TARGET

from dt_jax.evaluation.evaluator import Evaluator

TRANSITIONS = 10_000, 100_000, 1_000_000, 10_000_000
WINDOWS = 5, 10, 20, 40, 80
BATCHES = 16, 64, 256, 1024
EPISODES = 1, 10, 100, 400
TIMESTEPS = 100  # per evaluation


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="per turn")
    parser.add_argument("--picture", type=Path, default=Path("scaling.png"))
    args = parser.parse_args()
    device = jax.devices()[0].device_kind
    print(f"on {device}, JAX {jax.__version__}")
    config = workload.config
    per_call = config().steps_per_dispatch
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    table = Table("quantity", "value", "ms", "ratio to the previous")

    def measure(
        what: str, numbers: tuple[int, ...], calls: list[Callable[[], Any]], times: int
    ) -> None:
        seconds = workload.seconds_of(
            dict(zip(map(str, numbers), calls, strict=True)), args.rounds, args.seconds
        )
        ms = [1e3 * float(np.median(each)) / times for each in seconds.values()]
        for i, (n, cost) in enumerate(zip(numbers, ms, strict=True)):
            more = f"{cost / ms[i - 1]:.2f}" if i else ""
            table.add_row(what if i == 0 else "", f"{n:,}", f"{cost:.3g}", more)
        draw(next(panels), what, numbers, ms)

    panels = iter(figure.subplots(1, 4))
    updates = train_step.ours
    measure(
        "an update, against transitions",
        TRANSITIONS,
        [updates(config(), n) for n in TRANSITIONS],
        per_call,
    )
    measure(
        "an update, against T",
        WINDOWS,
        [updates(config(seq_len=n)) for n in WINDOWS],
        per_call,
    )
    measure(
        "an update, against B",
        BATCHES,
        [updates(config(batch_size=n)) for n in BATCHES],
        per_call,
    )
    measure(
        "a timestep, against episodes at once",
        EPISODES,
        [timesteps(n) for n in EPISODES],
        TIMESTEPS,
    )
    Console().print(table)
    figure.suptitle(f"{device}; dashed: proportional")
    figure.savefig(args.picture, dpi=150)
    print(f"picture {args.picture}")


def timesteps(episodes: int) -> Callable[[], Any]:
    """Return a function that evaluates the first timesteps of HalfCheetah episodes."""
    agent = workload.agent(workload.config(episode_len=TIMESTEPS))
    params = jax.jit(agent.init)(jax.random.key(0)).params
    with warnings.catch_warnings():  # about truncated episodes
        warnings.simplefilter("ignore")
        evaluator = Evaluator(agent, SPEC, [TARGET], episodes, seed=0)
    return lambda: evaluator(params)


def draw(axes: Axes, what: str, numbers: tuple[int, ...], ms: list[float]) -> None:
    """Plot milliseconds against values, with a dashed line for proportional cost."""
    axes.loglog(numbers, ms, "o-", color="#2f6fb2")
    last = np.array(ms[-1]) * np.array(numbers) / numbers[-1]
    axes.loglog(numbers, last, "--", color="#8c8c8c", linewidth=1)
    axes.set_ylim(min(ms) / 3, max(ms) * 3)
    axes.minorticks_off()
    short = EngFormatter(sep="")  # 10M
    axes.set_xticks(numbers, [short(n) if n >= 10_000 else str(n) for n in numbers])
    axes.yaxis.set_major_formatter("{x:g}")
    thing, _, against = what.partition(", against ")
    axes.set_xlabel(against)
    axes.set_ylabel(f"ms for {thing}")


if __name__ == "__main__":
    main()
