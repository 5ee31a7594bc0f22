"""Runs killed by SIGKILL at random moments resume and end as if never killed.

A kill is aimed at a phase, such as a save: it follows the N-th start of the phase after
a random part of the time that the phase takes in an undisturbed run. Or it is aimed at
any moment of the run. The marks that the process has written show which phases the kill
has hit.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from statistics import median

import h5py
import numpy as np
import pytest
from command import ROOT, SMALL_NETWORK
from helpers import assert_same_run, steps_of, untimed
from serving import serve, serving

from dt_jax.runs.checkpoint import choose_checkpoint
from dt_jax.runs.metrics import read_metrics

SMALL = [
    *SMALL_NETWORK,
    "--config.warmup_steps=10",
    "--config.update_steps=120",
    "--config.log_every=2",
    "--config.eval_every=12",
    "--config.eval_episodes=2",
    "--config.checkpoint_every=4",
    "--config.keep_checkpoints=2",
    "--config.target_returns=50,20",
    "--config.num_workers=1",
]
COLLECTED = ["--config=configs/maze2d.py:umaze-demo", *SMALL]
DOWNLOADED = [
    "--config=configs/hopper.py:medium",
    "--config.memory_limit_gb=1e-6",  # compressed data is unpacked to be mapped
    *SMALL,
]
ANY = "any moment"
TRAINING = ["evaluation", "evaluation's write", "save", "save", "save", "metrics write"]
TRAINING += ["metrics write", "deletion", "deletion", "opening", ANY, ANY]


class KillableRun:
    """A run with its own folder and its own cache.

    Args:
      folder: contains both.
      arguments: of launch.py.
      **environment: further environment variables.

    Attributes:
      phases: the seconds of each phase, every time that it occurred.
    """

    def __init__(self, folder, arguments, **environment):
        self.workdir, self.cache = folder / "run", folder / "cache"
        self.phases = defaultdict(list)
        self._arguments = [*arguments, f"--workdir={self.workdir}"]
        self._environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "DT_JAX_DATA": str(self.cache),
            # Shared, because most of a start would be compilation.
            "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "xla"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **environment,
        }

    def start(self, wait="-"):
        """Start the command; return its process and the file of its marks."""
        reading, writing = os.pipe()
        command = [sys.executable, "-m", "tests.faults.marked_launch", str(writing)]
        process = subprocess.Popen(
            [*command, wait, *self._arguments],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[writing],
            start_new_session=True,
            text=True,
        )
        os.close(writing)
        return process, os.fdopen(reading)

    def complete(self):
        """Run to the end, and time the phases; return the seconds of the run."""
        begin = time.monotonic()
        process, marks = self.start()
        started = {}
        with marks:
            for sign, phase, moment in map(parse, marks):
                if sign == "+":
                    started[phase] = moment
                else:
                    self.phases[phase].append(moment - started.pop(phase))
        err = process.communicate()[1]
        assert process.returncode == 0, err
        return time.monotonic() - begin

    def kill(self, phase, number, seconds):
        """Kill the run some time after the N-th start of a phase, or after its own.

        Returns:
          The phases that it was in; None if it was complete before.
        """
        process, marks = self.start(f"{phase}:{number}")
        lines = []
        with marks:
            if phase != ANY:
                starts = 0
                for line in marks:
                    lines.append(line)
                    starts += line.startswith(f"+{phase} ")
                    if starts == number:
                        process.stdin.write("\n")
                        process.stdin.flush()
                        break
            time.sleep(seconds)
            os.killpg(process.pid, signal.SIGKILL)
            lines += marks
        err = process.communicate()[1]
        if process.returncode == 0:
            return None
        assert process.returncode == -signal.SIGKILL, err
        depth = Counter()
        for sign, phase, _ in map(parse, lines):
            depth[phase] += 1 if sign == "+" else -1
        return {phase for phase, count in depth.items() if count}


def parse(line):
    sign, phase, moment = re.fullmatch(r"([+-])(.+) (\S+)\n", line).groups()
    return sign, phase, float(moment)


def check_kills(undisturbed, new_run, aims, seed, record_property):
    """Kill runs until every phase of `aims` was hit; compare each one at its end.

    Args:
      undisturbed: a run that has not started.
      new_run: returns another one with the same arguments.
      aims: phases, in the order of the kills.
      seed: of all random choices.
      record_property: for the figures.
    """
    seconds, draw = undisturbed.complete(), random.Random(seed)
    assert set(aims) - {ANY} <= undisturbed.phases.keys()
    hits, kills, runs = Counter(), 0, 0
    aims, wanted = list(aims), set(aims) - {ANY}
    run = None
    while aims:
        if run is None:
            run, runs = new_run(), runs + 1
        phase = aims[0]
        times = undisturbed.phases.get(phase, [seconds / 2])
        number = draw.randint(1, min(2, len(times)))
        hit = run.kill(phase, number, draw.uniform(0, median(times)))
        if hit is None:
            assert_as_undisturbed(run, undisturbed)
            run = None
            continue
        check_killed(run, undisturbed)
        aims.pop(0)
        kills += 1
        hits.update(hit or {"no phase"})
        if not aims:
            aims += sorted(wanted - hits.keys())
    run.complete()
    assert_as_undisturbed(run, undisturbed)
    record_property("kills survived", f"{kills} of {kills} (runs: {runs})")
    inside = ", ".join(f"{phase} {count}" for phase, count in hits.most_common())
    record_property("  of them inside", inside)


def check_killed(run, undisturbed):
    """Check that files are complete: datasets, checkpoints, all rows but the last."""
    for path in run.cache.glob("[!.]*"):
        if path.is_file():
            assert path.read_bytes() == (undisturbed.cache / path.name).read_bytes()
    steps = [row["step"] for row in read_metrics(run.workdir / "metrics.jsonl")]
    assert steps == sorted(set(steps))
    steps_of(run.workdir)  # would warn of a corrupt checkpoint, which is an error here


def assert_as_undisturbed(run, undisturbed):
    workdir, expected = run.workdir, undisturbed.workdir
    assert_same_run(workdir, expected)
    steps = [row["step"] for row in untimed(workdir)]
    assert steps == [0, *range(2, 121, 2)]
    text = (workdir / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    assert text.count("\n") == len(steps)
    config, other = ((path / "config.json").read_text() for path in (workdir, expected))
    assert config == other
    for path in expected.glob("eval/*"):
        with np.load(path) as a, np.load(workdir / "eval" / path.name) as b:
            assert {k: v.tobytes() for k, v in a.items()} == {
                k: v.tobytes() for k, v in b.items()
            }
    assert best(workdir) == best(expected)
    # No leftovers. (Orbax draws random names for the files inside a checkpoint.)
    for pattern in ("*", "eval/*", "checkpoints/*"):
        assert names(workdir, pattern) == names(expected, pattern)
    assert contents(run.cache) == contents(undisturbed.cache)


def best(workdir):
    """Return the step and the score of the best checkpoint."""
    checkpoint = choose_checkpoint(workdir / "checkpoints", "best")
    return checkpoint.step, checkpoint.score


def names(folder, pattern):
    return sorted(path.name for path in folder.glob(pattern))


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def new_folder(tmp_path):
    numbers = iter(range(100))
    return lambda: tmp_path / str(next(numbers))


def test_run_that_collects_its_data(new_folder, record_property):
    def new_run():
        return KillableRun(new_folder(), COLLECTED)

    aims = ["collection", "collection", "dataset's write", *TRAINING, "summary"]
    check_kills(new_run(), new_run, aims, 0, record_property)


def test_run_of_several_seeds(new_folder, record_property):
    def new_run():
        return KillableRun(new_folder(), [*COLLECTED, "--config.num_seeds=2"])

    aims = ["evaluation", "save", "save", "metrics write", ANY]
    check_kills(new_run(), new_run, aims, 2, record_property)


def test_run_that_downloads_its_data(new_folder, record_property):
    def new_run():
        return KillableRun(new_folder(), DOWNLOADED, http_proxy=proxy, no_proxy="")

    with serving(hopper_data(new_folder().with_suffix(".hdf5"))) as server:
        server.usual = lambda handler: serve(handler, seconds=2)
        proxy = f"http://127.0.0.1:{server.server_port}"
        aims = ["download", "download", "download", "unpacking", *TRAINING]
        undisturbed = new_run()
        check_kills(undisturbed, new_run, aims, 1, record_property)
    # The best is not among the last ones, which are retained in any case.
    assert best(undisturbed.workdir)[0] < 116


def hopper_data(path):
    """Return the bytes of a file in D4RL's schema with 40 random episodes."""
    draw, rows, length = np.random.default_rng(0), 4000, 100
    last = np.arange(rows) % length == length - 1
    columns = {
        "observations": draw.standard_normal((rows, 11), np.float32),
        "actions": draw.uniform(-1, 1, (rows, 3)).astype(np.float32),
        "rewards": draw.uniform(0, 2, rows).astype(np.float32),
        "terminals": last,
        "timeouts": np.zeros(rows, bool),
    }
    with h5py.File(path, "w") as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column, compression="gzip")
    return path.read_bytes()
