"""launch.py, reporting its phases: python -m tests.faults.marked_launch PIPE WAIT ...

Runs launch.py with the further arguments, unchanged but for lines "+PHASE TIME" and
"-PHASE TIME" at the start and the end of each phase, written to the file descriptor
PIPE. WAIT is "PHASE:N": at the N-th start of that phase the process reads a line from
stdin before it continues.
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
from dt_jax.datasets import demo, load
from dt_jax.evaluation.evaluator import Evaluator
from dt_jax.runs.checkpoint import CheckpointWriter
from dt_jax.runs.evaluations import Evaluation
from dt_jax.runs.metrics import MetricsLog

# Functions that are one phase each. "save" is added below: it ends in the background.
PHASES = {
    "opening": [(CheckpointWriter, "__init__"), (MetricsLog, "__init__")],
    "collection": [(demo, "collect_demo")],
    "dataset's write": [(demo, "write_d4rl")],
    "download": [(load, "download")],
    "unpacking": [(d4rl, "_unpack")],
    "evaluation": [(Evaluator, "__call__")],
    "evaluation's write": [(Evaluation, "save")],
    "metrics write": [(MetricsLog, "write")],
    "deletion": [(CheckpointWriter, "_delete")],
    "summary": [(summary, "draw")],
}


class Marks:
    """Writes the starts and ends of phases to a pipe."""

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


def mark_phases(marks):
    """Replace each function of a phase by one that also writes marks."""
    for phase, functions in PHASES.items():
        for owner, name in functions:
            setattr(owner, name, marked(marks, phase, getattr(owner, name)))
    save, finish = CheckpointWriter.save, CheckpointWriter._finish
    saving = False

    def marked_save(self, *args, **kwargs):
        nonlocal saving
        self.wait()  # `save` does this first: the previous save may end here
        marks.start("save")
        save(self, *args, **kwargs)
        saving = True

    def marked_finish(self):
        nonlocal saving
        finish(self)
        if saving:
            saving = False
            marks.end("save")

    CheckpointWriter.save, CheckpointWriter._finish = marked_save, marked_finish


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
    mark_phases(Marks(int(sys.argv[1]), sys.argv[2]))
    sys.argv[:] = ["launch.py", *sys.argv[3:]]
    run_command(lambda: train.main(sys.argv[1:]), "launch.py")
