"""Bottlenecks of an update and a rollout: a profile, and rates of matrix products.

    python benchmarks/bounds.py [--top=12]

Prints the most expensive operations of the compiled program, from JAX's profiler: for
an update of 64 windows, and for a timestep of 100 episodes without the environment.
Parallel operations are each counted in full. A third table has the rates of an update's
matrix products in isolation, as the machine's limit.
"""

import argparse
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import workload
from rich.console import Console
from rich.table import Table

from dt_jax.types import Array

UPDATES, TIMESTEPS, EPISODES = 5, 25, 100


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--top", type=int, default=12, help="rows per table")
    args = parser.parse_args()
    print(f"on {jax.devices()[0].device_kind}, JAX {jax.__version__}")
    for what, (program, inputs, count) in {
        "an update": updates(),
        "a timestep of 100 episodes": timesteps(),
    }.items():
        Console().print(operations(what, program, inputs, count, args.top))
    Console().print(products())


def updates() -> tuple[Callable[..., Any], tuple[Any, ...], int]:
    """Return a program of updates, its inputs, and the number of updates."""
    config = workload.config()
    update, state = workload.training(config)
    batch = workload.sampler(config).batch(0)

    def program(state: Any, batch: Any) -> Any:
        return jax.lax.fori_loop(0, UPDATES, lambda _, s: update(s, batch)[0], state)

    return program, (state, batch), UPDATES


def timesteps() -> tuple[Callable[..., Any], tuple[Any, ...], int]:
    """Return a program that acts, its inputs, and the number of timesteps."""
    agent = workload.agent(workload.config())
    params = jax.jit(agent.init)(jax.random.key(0)).params
    context = jax.jit(agent.start)(np.full(EPISODES, 5000, np.float32))
    observations = np.ones((EPISODES, workload.STATE), np.float32)

    def program(params: Any, context: Any, observations: Array) -> Any:
        def act(context: Any, _: None) -> tuple[Any, Array]:
            rewards = jnp.zeros(EPISODES)
            return agent.act(params, context, observations, rewards, rewards > 0)

        return jax.lax.scan(act, context, length=TIMESTEPS)

    return program, (params, context, observations), TIMESTEPS


def operations(
    what: str,
    program: Callable[..., Any],
    inputs: tuple[Any, ...],
    count: int,
    top: int,
) -> Table:
    """Profile a program of `count` repetitions; return its slowest operations."""
    compiled = jax.jit(program).lower(*inputs).compile()
    jax.block_until_ready(compiled(*inputs))
    known = {}  # operation -> shape and source
    for line in compiled.as_text().splitlines():
        pattern = r'\s*(?:ROOT )?%([\w.\-]+) = (\w+\[[\d,]*\]).*?op_name="([^"]*)"'
        if found := re.match(pattern, line):
            name, shape, source = found.groups()
            known[name] = (shape, "/".join(source.split("/")[-4:]))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with jax.profiler.trace(folder):
            jax.block_until_ready(compiled(*inputs))
        wall = 1e3 * (time.perf_counter() - start) / count
        (trace,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(trace))
    spent: Counter[str] = Counter()
    for plane in profile.planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in known and "while" not in event.name:
                    spent[event.name] += event.duration_ns / 1e6 / count
    table = Table("ms", "shape", "operation")
    table.title = f"{what}: {wall:.1f} ms, operations {spent.total():.1f} ms"
    for name, ms in spent.most_common(top):
        table.add_row(f"{ms:.2f}", *known[name])
    return table


def products() -> Table:
    """Return the rates of the largest matrix products of an update."""
    config = workload.config()
    tokens = config.batch_size * (3 * config.seq_len - 1)
    d = config.embedding_dim
    table = Table("tokens x in x out", "forward", "input gradient", "weight gradient")
    table.title = "GFLOP/s of products in isolation"
    for size, out in [(d, d), (d, 4 * d), (4 * d, d)]:
        keys = jax.random.split(jax.random.key(0), 3)
        x = jax.random.normal(keys[0], (tokens, size))
        w = jax.random.normal(keys[1], (size, out))
        y = jax.random.normal(keys[2], (tokens, out))
        ways = {
            "forward": (lambda x, w: x @ w, x, w),
            "inputs": (lambda y, w: y @ w.T, y, w),
            "weights": (lambda x, y: x.T @ y, x, y),
        }
        calls = {name: ready(jax.jit(f), a, b) for name, (f, a, b) in ways.items()}
        gflop = 2e-9 * tokens * size * out
        times = workload.seconds_of(calls, rounds=5, seconds=0.2)
        rates = (f"{gflop / np.median(times[name]):.0f}" for name in ways)
        table.add_row(f"{tokens} x {size} x {out}", *rates)
    return table


def ready(f: Callable[..., Any], *inputs: Any) -> Callable[[], Any]:
    """Return a function that calls `f` and blocks until the result is ready."""
    return lambda: jax.block_until_ready(f(*inputs))


if __name__ == "__main__":
    main()
