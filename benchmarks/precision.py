"""Does training in bfloat16 come to the loss of float32?

    python benchmarks/precision.py FILE [--updates=2000] [--batch_size=64]

Makes the same updates on a D4RL file twice, with CORL's sizes and dropout, the same
batches and the same initialisation, and prints the mean loss of the last tenth of them,
where the noise of single batches is the same in both.
"""

import time
from pathlib import Path

import jax
import numpy as np
import workload
from rich.console import Console
from rich.table import Table

from dt_jax.data.sampler import Sampler
from dt_jax.datasets import load_dataset
from dt_jax.training.batches import OnDevice
from dt_jax.training.multi_step import Dispatch, share_out
from dt_jax.utils.errors import OneLineParser, exit_with_one_line
from dt_jax.utils.sharding import place


def main() -> None:
    """Train twice and print the table."""
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--batch_size", type=int, default=64)
    args = parser.parse_args()
    print(f"on {jax.devices()[0].device_kind}, JAX {jax.__version__}")
    table = Table("compute_dtype", "loss", "ratio", "ms an update")
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
    trajectories = load_dataset(None, str(path)).trajectories
    sampler = Sampler(
        trajectories,
        batch_size=batch_size,
        seq_len=config.seq_len,
        reward_scale=config.reward_scale,
        seed=config.train_seed,
        state_mean=trajectories.state_mean,
        state_std=trajectories.state_std,
    )
    sizes = trajectories.observations.shape[1], trajectories.actions.shape[1]
    update, state = workload.training(config, *sizes)
    feed = OnDevice([sampler], place(config))
    dispatch = Dispatch(update, feed, config.steps_per_dispatch)
    losses = []
    for steps in share_out(0, updates, config.steps_per_dispatch, between=[updates]):
        state, metrics = dispatch(state, dispatch.inputs(steps), len(steps))
        losses.append(metrics["train_loss"][: len(steps)])
    return float(np.concatenate(losses)[-updates // 10 :].mean())


if __name__ == "__main__":
    exit_with_one_line(main)
