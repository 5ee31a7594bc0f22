"""launch.py, telling a pipe what it is at: python -m tests.faults.watched PIPE WAIT ...

Nothing is done in another way; lines "+PHASE TIME" and "-PHASE TIME" are written at its
start and end. WAIT is "PHASE:N": at the N-th start of it a line is read from stdin
before it goes on, for somebody who wants to be there in time. Then launch.py's own
arguments.
"""

import functools
import os
import sys
import time
from collections import Counter

from dt_jax.analysis import summary
from dt_jax.cli import train
from dt_jax.cli.common import run_command
from dt_jax.data import d4rl
from dt_jax.datasets import demo as collect
from dt_jax.datasets import load as datasets
from dt_jax.datasets.demo import demo
from dt_jax.evaluation.evaluator import Evaluator
from dt_jax.runs.checkpoint import CheckpointWriter
from dt_jax.runs.evaluations import Evaluation
from dt_jax.runs.metrics import MetricsLog

# All of a phase happens in one call, but for "save", which goes on in the background.
PHASES = {
    "opening": [(CheckpointWriter, "__init__"), (MetricsLog, "__init__")],
    "collection": [(collect, "collect_demo")],
    "dataset's write": [(demo, "write_d4rl")],
    "download": [(datasets, "download")],
    "unpacking": [(d4rl, "_unpack")],
    "evaluation": [(Evaluator, "__call__")],
    "evaluation's write": [(Evaluation, "save")],
    "metrics write": [(MetricsLog, "write")],
    "summary": [(summary, "draw")],
}


class Marks:
    """What is written to the pipe."""

    def __init__(self, pipe: int, wait: str):
        self._pipe = pipe
        self._phase, _, number = wait.partition(":")
        self._number = int(number or 0)
        self._starts = Counter()

    def start(self, phase):
        self._write("+", phase)
        self._starts[phase] += 1
        if (phase, self._starts[phase]) == (self._phase, self._number):
            sys.stdin.readline()

    def end(self, phase):
        self._write("-", phase)

    def _write(self, sign, phase):
        os.write(self._pipe, f"{sign}{phase} {time.monotonic()}\n".encode())


def watch(marks):
    """Have each function of PHASES, and the two that make a save, leave marks."""
    for phase, functions in PHASES.items():
        for owner, name in functions:
            setattr(owner, name, marked(marks, phase, getattr(owner, name)))
    save, confirm = CheckpointWriter.save, CheckpointWriter.confirm
    under_way = False

    def marked_save(self, *args, **kwargs):
        nonlocal under_way
        self.confirm()  # as it does itself first: the save before may end here
        marks.start("save")
        save(self, *args, **kwargs)
        under_way = True

    def marked_confirm(self):
        nonlocal under_way
        confirm(self)
        if under_way:
            under_way = False
            marks.end("save")

    CheckpointWriter.save, CheckpointWriter.confirm = marked_save, marked_confirm


def marked(marks, phase, function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        marks.start(phase)
        try:
            return function(*args, **kwargs)
        finally:
            marks.end(phase)

    return call


if __name__ == "__main__":
    watch(Marks(int(sys.argv[1]), sys.argv[2]))
    sys.argv[:] = ["launch.py", *sys.argv[3:]]
    run_command(lambda: train.main(sys.argv[1:]), "launch.py")
