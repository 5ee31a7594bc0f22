"""Scores of the algorithms on shared data, at equal width, batch size and updates.

  nice python benchmarks/algorithms.py --data=../shared/datasets
  nice python benchmarks/algorithms.py --data=../shared/datasets --only=dt,qt
  nice python benchmarks/algorithms.py --data=../shared/datasets --only=dt,band,conv \
      --seeds=5 --tasks=halfcheetah,hopper,walker2d,antmaze --out=runs/mixers

Trains each algorithm on halfcheetah-, hopper- and walker2d-trpo-replay.hdf5 of the
folder `--data` with 3 seeds in one program, and on maze2d-umaze-demo and
antmaze-umaze-demo with one. All networks have a width of 128; every agent takes 5,000
updates of 64, the critics of stages 50,000, which cost less than a tenth of the policy.
Prints the score of the last checkpoint at the first target, on the three bodies the
data's best return (of qdt the largest label): the mean over seeds ± its standard error,
over episodes where there is one seed. Run again, it resumes.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from dt_jax.analysis.tables import Table
from dt_jax.runs.evaluations import last_evaluation

ROOT = Path(__file__).resolve().parent.parent
BODIES = ("halfcheetah", "hopper", "walker2d")
MAZES = ("maze2d", "antmaze")
SHARED = {
    "batch_size": 64,
    "update_steps": 5_000,
    "eval_every": 5_000,
    "eval_episodes": 20,
    "checkpoint_every": 1_000,
    "steps_per_dispatch": 25,
}
TRANSFORMER = {
    "embedding_dim": 128,
    "num_layers": 3,
    "num_heads": 1,
    "learning_rate": 8e-4,
    "lr_schedule": "warmup_cosine",
    "warmup_steps": 500,
}
CRITIC = {"critic_dim": 128}
STAGE = {"critic_update_steps": 50_000, "critic_batch_size": 64}
# The folder in configs/, and the keys that differ from its files.
ALGORITHMS: dict[str, tuple[str, dict[str, object]]] = {
    "dt": ("", TRANSFORMER),
    "band": ("", TRANSFORMER | {"attention_band": "fit"}),
    "conv": ("", TRANSFORMER | {"mixer": "conv"}),
    "bc-10%": ("bc/", {"hidden_dim": 128, "top_fraction": 0.1}),
    "iql": ("iql/", CRITIC),
    "iql-50k": ("iql/", CRITIC | {"update_steps": 50_000, "eval_every": 50_000}),
    "qdt": ("qdt/", TRANSFORMER | CRITIC | STAGE),
    # Averages of the policy from the start: 1,000 updates are a fifth of the run.
    "qt": ("qt/", TRANSFORMER | CRITIC | {"ema_start": 0, "ema_every": 1}),
    "qcs": ("qt/", TRANSFORMER | CRITIC | STAGE | {"mode": "qcs"}),
}


def train(
    algorithm: str, task: str, data: Path, workdir: Path, seeds: int | None
) -> float:
    """Train one algorithm on one dataset; return the seconds it took."""
    folder, keys = ALGORITHMS[algorithm]
    keys = SHARED | keys
    variant, keys["num_seeds"] = "umaze-demo", seeds or 1
    if task in BODIES:
        variant = "medium-replay"
        keys |= {
            "data_path": data / f"{task}-trpo-replay.hdf5",
            "num_seeds": seeds or 3,
        }
        if folder not in ("bc/", "iql/"):
            keys |= {"target_returns": None, "reward_scale": 0.001, "seq_len": 20}
    command = [sys.executable, ROOT / "launch.py", f"--workdir={workdir}"]
    command += [f"--config={ROOT}/configs/{folder}{task}.py:{variant}"]
    command += [f"--config.{key}={value}" for key, value in keys.items()]
    start = time.perf_counter()
    with workdir.with_suffix(".log").open("a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    return time.perf_counter() - start


def score(workdir: Path) -> str:
    """Return the score at the first target of a run's last evaluation."""
    newest = last_evaluation(workdir)
    if newest is None:
        return "not measured"
    scores = newest[1].normalized_scores
    assert scores is not None  # both are D4RL's environments
    values = scores[..., 0, :].mean(axis=-1) if scores.ndim == 3 else scores[0]
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.1f} ± {error:.1f}"


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/algorithms"))
    parser.add_argument("--only", default=",".join(ALGORITHMS), help="algorithms")
    parser.add_argument("--tasks", default=",".join(BODIES + MAZES), help="datasets")
    parser.add_argument("--seeds", type=int, help="instead of 3, and 1 in mazes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    names, tasks = args.only.split(","), args.tasks.split(",")
    seconds = 0.0
    for task in tasks:
        for name in names:
            workdir = args.out / f"{task}-{name}"
            taken = train(name, task, args.data, workdir, args.seeds)
            seconds += taken
            print(f"{workdir}: {score(workdir)}, {taken / 60:.1f} minutes", flush=True)
    rows = [[name, *(score(args.out / f"{x}-{name}") for x in tasks)] for name in names]
    print(Table(["", *tasks], rows).markdown())
    print(f"{seconds / 3600:.1f} hours")


if __name__ == "__main__":
    main()
