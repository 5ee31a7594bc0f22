"""A long run, watched from outside: its memory, files and threads stay as they are.

With PICTURES=docs/images in the environment the curve is drawn to memory.png there.
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
SETTLED = 1_000  # updates, whose growth is not looked at

# An update needs 19 MB to work in. As a rule glibc keeps some of that for the next one,
# in the arenas of whichever threads it was freed by: resident memory wanders by 20 to
# 60 MB, without a trend but too far for 2% to be seen. If it is given back at once,
# which costs speed, what remains is what is in use.
KEEP_NOTHING = {
    "MALLOC_MMAP_THRESHOLD_": "4194304",
    "MALLOC_TRIM_THRESHOLD_": "4194304",
}


class Sample(NamedTuple):
    """What the process held at one moment."""

    step: int  # of the newest row of metrics.jsonl, -1 before there is one
    memory: float  # resident, MB
    files: int
    threads: int


@pytest.mark.skipif(sys.platform != "linux", reason="tells glibc what to keep")
def test_memory_files_and_threads_stay_as_they_are(tmp_path, record_property):
    data = {"DT_JAX_DATA": str(tmp_path / "data")}
    status, _, err = run("-m", "dt_jax", "data", "download", "halfcheetah-demo", **data)
    assert status == 0, err
    samples = watched(
        tmp_path / "run",
        f"--config.update_steps={UPDATES}",
        f"--config.eval_every={EVERY}",
        f"--config.checkpoint_every={EVERY}",
        f"--config.log_every={LOGGED}",
        **data,
        **KEEP_NOTHING,
    )
    if folder := os.environ.get("PICTURES"):
        draw(samples, Path(folder) / "memory.png")

    def record(what, unit, before, after):
        figure = f"{before:.0f}{unit}, then {after:.0f}{unit} ({after - before:+.1f})"
        record_property(f"{what}, up to step {UPDATES // 2:,} and after it", figure)

    # In an evaluation no update and no save is under way: what a run holds then is what
    # it does not let go of.
    evaluations = range(SETTLED, UPDATES + 1, EVERY)
    first, second = halves([during_evaluation(samples, step) for step in evaluations])
    # Means, since each new EnvPool takes a few MB more or less than the last.
    before, after = (mean(s.memory for s in half) for half in (first, second))
    record("memory in an evaluation", " MB", before, after)
    assert after < 1.02 * before

    files, later = (max(s.files for s in half) for half in (first, second))
    record("open files", "", files, later)
    assert later <= files

    # TensorStore's 7 or 8 end some seconds after a save, which may be before the next
    # evaluation or not. If one were left behind each time, it would be 10 more.
    threads, later = (max(s.threads for s in half) for half in (first, second))
    record("threads", "", threads, later)
    assert later < threads + len(second)

    first, second = halves([s for s in samples if SETTLED <= s.step < UPDATES])
    peak, later = (max(s.memory for s in half) for half in (first, second))
    record("memory at its highest", " MB", peak, later)
    assert later < 1.05 * peak  # the 19 MB of one update, if one more was under way


def watched(workdir, *flags, **environment):
    """Run launch.py to its end; return what it held, twice a second."""
    process = start("launch.py", f"--workdir={workdir}", *flags, **environment)
    samples = []
    watcher = Thread(target=watch, args=(process.pid, workdir, samples))
    watcher.start()
    try:
        _, err = process.communicate(timeout=2 * 3600)
    finally:
        process.kill()
        watcher.join()
    assert process.returncode == 0, err
    return samples


def watch(pid, workdir, samples):
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
    """Return the medians of what was held in the evaluation after `step` updates.

    Its row is written at its end. What follows the row before are LOGGED updates, and
    then the evaluation, which takes longer than they do.
    """
    since = [s for s in samples if s.step == step - LOGGED]
    assert since, f"the evaluation at step {step} was too short to be seen"
    during = np.asarray(since[len(since) // 2 :])
    return Sample(step, *np.median(during, axis=0)[1:])


def halves(samples):
    middle = UPDATES // 2
    first = [s for s in samples if s.step <= middle]
    return first, samples[len(first) :]


def draw(samples, path):
    """Draw memory over updates; samples between two rows are at equal distances."""
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
