"""A long run, observed from outside: memory, files and threads do not grow.

With PICTURES=docs/images in the environment, memory is plotted to memory.png there.
"""

import os
import sys
import time
from pathlib import Path
from statistics import mean
from threading import Thread
from typing import NamedTuple

import numpy as np
import psutil
import pytest
from command import run, start
from matplotlib.figure import Figure

from dt_jax.runs.metrics import read_metrics

# The quickstart, five times as long, with twice as many evaluations and checkpoints.
UPDATES, EVERY, LOGGED = 20_000, 1_000, 100
WARM_UP = 1_000  # updates that are not compared

# An update takes 19 MB of temporary memory. By default glibc keeps part of it in the
# arenas of the threads that freed it, and resident memory varies by 20 to 60 MB without
# a trend, which hides a growth of 2 %. Returned at once, at the cost of speed, resident
# memory is memory in use.
RETURN_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "4194304",
    "MALLOC_TRIM_THRESHOLD_": "4194304",
}


class Sample(NamedTuple):
    """The resources of the process at one moment."""

    step: int  # of the newest row of metrics.jsonl, -1 before there is one
    memory: float  # resident, MB
    files: int
    threads: int


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_memory_files_and_threads_do_not_grow(tmp_path, record_property):
    data = {"DT_JAX_DATA": str(tmp_path / "data")}
    status, _, err = run("-m", "dt_jax", "data", "download", "halfcheetah-demo", **data)
    assert status == 0, err
    samples = observe_run(
        tmp_path / "run",
        f"--config.update_steps={UPDATES}",
        f"--config.eval_every={EVERY}",
        f"--config.checkpoint_every={EVERY}",
        f"--config.log_every={LOGGED}",
        **data,
        **RETURN_MEMORY,
    )
    if folder := os.environ.get("PICTURES"):
        plot(samples, Path(folder) / "memory.png")

    def record(name, unit, before, after):
        figure = f"{before:.0f}{unit}, then {after:.0f}{unit} ({after - before:+.1f})"
        record_property(f"{name}, up to step {UPDATES // 2:,} and after it", figure)

    # During an evaluation there is no update and no save: what a run holds then, it
    # does not release.
    evaluations = range(WARM_UP, UPDATES + 1, EVERY)
    first, second = halves([during_evaluation(samples, step) for step in evaluations])
    # Means, because each new EnvPool takes a few MB more or less than the one before.
    before, after = (mean(s.memory for s in half) for half in (first, second))
    record("memory in an evaluation", " MB", before, after)
    assert after < 1.02 * before

    before, after = (max(s.files for s in half) for half in (first, second))
    record("open files", "", before, after)
    assert after <= before

    # 7 or 8 threads of TensorStore end some seconds after a save, perhaps after the
    # next evaluation. One more thread per save would make 10 more.
    before, after = (max(s.threads for s in half) for half in (first, second))
    record("threads", "", before, after)
    assert after < before + len(second)

    first, second = halves([s for s in samples if WARM_UP <= s.step < UPDATES])
    before, after = (max(s.memory for s in half) for half in (first, second))
    record("peak memory", " MB", before, after)
    assert after < 1.05 * before  # the 19 MB of an update may coincide with a save


def observe_run(workdir, *flags, **environment):
    """Run launch.py to its end; return samples of its resources, two per second."""
    process = start("launch.py", f"--workdir={workdir}", *flags, **environment)
    samples = []
    observer = Thread(target=observe, args=(process.pid, workdir, samples))
    observer.start()
    try:
        _, err = process.communicate(timeout=2 * 3600)
    finally:
        process.kill()
        observer.join()
    assert process.returncode == 0, err
    return samples


def observe(pid, workdir, samples):
    process = psutil.Process(pid)
    while True:
        rows = read_metrics(workdir / "metrics.jsonl")
        step = rows[-1]["step"] if rows else -1
        try:
            files, threads = process.num_fds(), process.num_threads()
            memory = process.memory_info().rss / 1e6
        except psutil.Error:  # it has ended
            return
        samples.append(Sample(step, memory, files, threads))
        time.sleep(0.5)


def during_evaluation(samples, step):
    """Return the medians of the samples during the evaluation after `step` updates.

    The row of an evaluation is written at its end. After the row before it follow
    LOGGED updates and then the evaluation, which takes longer.
    """
    since = [s for s in samples if s.step == step - LOGGED]
    assert since, f"the evaluation at step {step} was too short to be observed"
    during = np.asarray(since[len(since) // 2 :])
    return Sample(step, *np.median(during, axis=0)[1:])


def halves(samples):
    middle = UPDATES // 2
    first = [s for s in samples if s.step <= middle]
    return first, samples[len(first) :]


def plot(samples, path):
    """Plot memory over updates; samples between two rows are at equal distances."""
    rows = np.asarray([s.step for s in samples])
    steps = rows.astype(float)
    for row in np.unique(rows):
        count = (rows == row).sum()
        steps[rows == row] += LOGGED * np.arange(count) / count
    figure = Figure(figsize=(6, 2.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, [s.memory for s in samples], color="#2f6fb2", linewidth=1)
    axes.set(xlabel="updates", ylabel="resident memory, MB")
    axes.set(xlim=(0, UPDATES), ylim=(0, None))
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
