"""The training loss in bfloat16 compared with float32.

    python benchmarks/precision.py FILE [--updates=2000] [--batch_size=64]

Makes the same updates on a D4RL file in both, with CORL's sizes and dropout, the same
batches and the same initialisation, and prints the mean loss of the last tenth of them.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np
import workload
from rich.console import Console
from rich.table import Table

from dt_jax.data.normalizer import Normalizer
from dt_jax.data.sampler import Sampler
from dt_jax.datasets import read_dataset
from dt_jax.training.batches import DeviceBatches
from dt_jax.training.multi_step import MultiStep, step_chunks


def main() -> None:
    """Train twice and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--batch_size", type=int, default=64)
    args = parser.parse_args()
    print(f"on {jax.devices()[0].device_kind}, JAX {jax.__version__}")
    table = Table("compute_dtype", "loss", "ratio", "ms per update")
    losses: dict[str, float] = {}
    for dtype in ("float32", "bfloat16"):
        start = time.perf_counter()
        losses[dtype] = train(args.file, args.updates, args.batch_size, dtype)
        seconds = time.perf_counter() - start
        table.add_row(
            dtype,
            f"{losses[dtype]:.5f}",
            f"{losses[dtype] / losses['float32']:.4f}",
            f"{1e3 * seconds / args.updates:.1f}",
        )
    Console().print(table)


def train(path: Path, updates: int, batch_size: int, dtype: str) -> float:
    """Return the mean loss of the last tenth of `updates`."""
    config = workload.config(
        batch_size=batch_size,
        compute_dtype=dtype,
        learning_rate=8e-4,
        update_steps=updates,
        warmup_steps=updates // 10,
    )
    trajectories = read_dataset(None, str(path)).trajectories
    sizes = trajectories.observations.shape[1], trajectories.actions.shape[1]
    sampler = Sampler(
        trajectories,
        Normalizer(
            trajectories.state_mean,
            trajectories.state_std,
            np.zeros(sizes[1], np.float32),
            np.ones(sizes[1], np.float32),
            config.reward_scale,
        ),
        batch_size=batch_size,
        context_len=config.seq_len,
        seed=config.train_seed,
        fields=workload.agent(config).batch_fields,
    )
    update, state = workload.training(config, *sizes)
    batches = DeviceBatches([sampler], workload.sharding(config))
    multi_step = MultiStep(update, batches, config.steps_per_dispatch)
    losses = []
    for steps in step_chunks(0, updates, config.steps_per_dispatch, [updates]):
        state, metrics = multi_step(state, multi_step.inputs(steps), len(steps))
        losses.append(metrics["train_loss"][: len(steps)])
    return float(np.concatenate(losses)[-updates // 10 :].mean())


if __name__ == "__main__":
    main()
