"""Collect a demo dataset: python -m dt_jax collect hopper-demo --out=hopper.hdf5."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from dt_jax.cli.common import CommandParser
from dt_jax.datasets.demo import collect_demo
from dt_jax.rollout.episodes import Episode
from dt_jax.utils.files import remove_leftovers, user_path


def main(arguments: Sequence[str]) -> None:
    """Collect the dataset on the command line and print its statistics."""
    parser = CommandParser(
        command="collect",
        description="Collect a demo dataset in D4RL's HDF5 schema. halfcheetah, hopper "
        "and walker2d: linear policies of four skill levels with equal shares of the "
        "steps. maze2d and antmaze: a controller that follows shortest paths, as in "
        "D4RL.",
        example="hopper-demo --steps=100000 --out=hopper.hdf5",
    )
    parser.add_argument(
        "env_name", help="hopper-demo, maze2d-umaze-demo, antmaze-medium-play-demo, ..."
    )
    parser.add_argument("--steps", type=int, help="minimum number of transitions")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--out", type=Path, help="default: <env_name>.hdf5")
    args = parser.parse_args(arguments)
    out = user_path(args.out) if args.out else Path(f"{args.env_name}.hdf5")
    remove_leftovers(out)
    levels = collect_demo(args.env_name, out, steps=args.steps, seed=args.seed)
    transitions = sum(len(episode.rewards) for level in levels for episode in level)
    print(f"{out}: {transitions:,} transitions")
    Console().print(_table(levels))


def _table(levels: list[list[Episode]]) -> Table:
    """Return a table of each skill level's returns and lengths."""
    table = Table(
        "level", "episodes", "return (mean ± std)", "any reward", "length (mean)"
    )
    for number, episodes in enumerate(levels, start=1):
        returns = [episode.rewards.sum(dtype=np.float64) for episode in episodes]
        rewarded = [episode.rewards.any() for episode in episodes]
        lengths = [len(episode.rewards) for episode in episodes]
        table.add_row(
            str(number),
            str(len(episodes)),
            f"{np.mean(returns):.1f} ± {np.std(returns):.1f}",
            f"{np.mean(rewarded):.0%}",
            f"{np.mean(lengths):.1f}",
        )
    return table
