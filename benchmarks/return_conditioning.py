"""Achieved return against target return, for the quickstart and a control.

  python benchmarks/return_conditioning.py [--seeds=0,1,2] [--out=runs/conditioning]

Trains the quickstart once per seed, and once more with all return tokens set to zero
(reward_scale=0). Prints the mean achieved return at each target return, and Spearman's
rank correlation of the two.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from dt_jax.runs.evaluations import last_evaluation

ROOT = Path(__file__).resolve().parent.parent


def run(workdir: Path, seed: int, *overrides: str) -> float:
    """Train the quickstart and return its seconds, start-up included."""
    start = time.perf_counter()
    command = [sys.executable, ROOT / "launch.py", f"--workdir={workdir}"]
    command += [f"--config.train_seed={seed}", *overrides]
    with (workdir.with_suffix(".log")).open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    return time.perf_counter() - start


def main() -> None:
    """Train the missing runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("runs/conditioning"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    table = Table("return tokens", "seed")
    kinds = {"unchanged": (), "zero": ("--config.reward_scale=0",)}
    for kind, overrides in kinds.items():
        for seed in map(int, args.seeds.split(",")):
            name = f"{'control' if overrides else 'quickstart'}-{seed}"
            is_new = not (args.out / name).exists()
            seconds = run(args.out / name, seed, *overrides)
            newest = last_evaluation(args.out / name)
            assert newest, "the quickstart evaluates"
            _, evaluation = newest
            if not table.row_count:
                for target in evaluation.target_returns:
                    table.add_column(f"{target:g}", justify="right")
                for heading in ("Spearman", "top score", "seconds"):
                    table.add_column(heading, justify="right")
            means = evaluation.returns.mean(axis=1)
            correlation = "all equal"
            if np.ptp(means) > 0:
                rank = spearmanr(evaluation.target_returns, means).statistic
                correlation = f"{rank:.2f}"
            top = evaluation.normalized_scores[np.argmax(evaluation.target_returns)]
            table.add_row(
                kind,
                str(seed),
                *(f"{mean:.0f}" for mean in means),
                correlation,
                f"{top.mean():.1f}",
                f"{seconds:.0f}" if is_new else "",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
