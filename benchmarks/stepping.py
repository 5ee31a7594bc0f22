"""The speed of stepping many MuJoCo bodies: mujoco.rollout, or threads over mj_step.

    python benchmarks/stepping.py

Prints control steps per second on one thread and on all cores, and their ratio.

mj_step starts the constraint solver from the previous solution; our rollout starts it
cold at each control step, so that a step depends only on its state. The two methods
therefore do not do exactly the same work. The model and the substeps are private to
`MujocoBatch`; they are read here so that both methods step the same bodies.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np
from rich.console import Console
from rich.table import Table

from dt_jax.envs import mazes
from dt_jax.envs.antmaze import ants
from dt_jax.envs.base import usable_cores
from dt_jax.envs.maze2d import points
from dt_jax.envs.mujoco_batch import MujocoBatch

BODIES = 200
SECONDS = 3.0  # per measurement


Step = Callable[[np.ndarray], None]  # takes controls [N, nu]


def main() -> None:
    """Step ants and points with both methods and print the table."""
    cores = usable_cores()
    table = Table("bodies", "stepped by", "1 thread", f"{cores} threads", "ratio")
    for name, make in [
        ("ants, umaze", lambda threads: ants(mazes.antmaze("umaze"), BODIES, threads)),
        ("ants, large", lambda threads: ants(mazes.antmaze("large"), BODIES, threads)),
        ("points", lambda threads: points(mazes.maze2d("large"), BODIES, threads)),
    ]:
        for way in (rollout, mj_step):
            one, many = (speed(make(threads), way, threads) for threads in (1, cores))
            table.add_row(
                name, way.__name__, f"{one:,.0f}", f"{many:,.0f}", f"{many / one:.2f}"
            )
    Console().print(table)
    print(f"control steps per second of {BODIES} bodies under random actions")


def rollout(bodies: MujocoBatch, threads: int) -> Step:
    """Return the method of dt_jax: mujoco.rollout, with one MjData per thread."""
    return bodies.step


def mj_step(bodies: MujocoBatch, threads: int) -> Step:
    """Return a method in which each thread calls mj_step for a part of N MjData."""
    model, substeps = bodies._model, bodies._substeps
    datas = [mujoco.MjData(model) for _ in bodies.qpos]
    shares = np.array_split(np.arange(len(datas)), threads)
    pool = ThreadPoolExecutor(threads)

    def step_share(share: np.ndarray, controls: np.ndarray) -> None:
        for i in share:
            datas[i].ctrl[:] = controls[i]
            mujoco.mj_step(model, datas[i], substeps)
            bodies.qpos[i], bodies.qvel[i] = datas[i].qpos, datas[i].qvel

    def step(controls: np.ndarray) -> None:
        list(pool.map(lambda share: step_share(share, controls), shares))

    return step


def speed(
    bodies: MujocoBatch, way: Callable[[MujocoBatch, int], Step], threads: int
) -> float:
    """Return control steps per second."""
    rng, step = np.random.default_rng(0), way(bodies, threads)
    size = len(bodies.qpos), bodies._model.nu
    step(rng.uniform(-1, 1, size))  # warm up
    steps, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        step(rng.uniform(-1, 1, size))
        steps += 1
    return steps * len(bodies.qpos) / elapsed


if __name__ == "__main__":
    main()
