"""SIGTERM, SIGINT and SIGUSR1 at any moment of the quickstart."""

import random
import signal
import time
from pathlib import Path

import pytest
from command import run, start, wait_until_it_listens

from dt_jax.runs.checkpoint import find_checkpoints
from dt_jax.utils.signals import SIGNALS

SECONDS = 10  # in which a run answers
COMMAND = (
    "import signal, runpy, sys\n"
    # Where these tests run in the background or under nohup, these are ignored, and
    # would stay so.
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    "sys.argv[0] = 'launch.py'\n"
    "runpy.run_path('launch.py', run_name='__main__')\n"
)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """Return the command and the environment of a quickstart whose data is there."""
    cache = str(tmp_path_factory.mktemp("cache"))
    out = f"{cache}/halfcheetah-demo.hdf5"
    status, _, err = run(
        "-m", "dt_jax", "collect", "halfcheetah-demo", f"--out={out}", "--steps=20000"
    )
    assert status == 0, err
    # More updates than can be made between all the signals.
    arguments = "-c", COMMAND, "--config.update_steps=20000"
    return lambda workdir: start(*arguments, f"--workdir={workdir}", DT_JAX_DATA=cache)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_signals_are_answered_at_any_moment(quickstart, tmp_path, record_property):
    """One run, asked to stop again and again, in turn by each signal."""
    rng, slowest, steps = random.Random(0), 0.0, [0]
    moments = [0.0, 0.5, 1.0, 2.0, 3.0, 5.0, *(rng.uniform(4, 24) for _ in range(9))]
    for i, moment in enumerate(moments):
        signum = SIGNALS[i % len(SIGNALS)]
        process = quickstart(tmp_path / "run")
        wait_until_it_listens(process)
        if moment > 5:  # in the first evaluation or later
            while not (tmp_path / "run" / "metrics.jsonl").exists():
                time.sleep(0.1)
        time.sleep(moment)
        process.send_signal(signum)
        sent = time.monotonic()
        _, err = process.communicate(timeout=60)
        slowest = max(slowest, time.monotonic() - sent)
        assert err, (i, moment, process.returncode)
        (line,) = [line for line in err.splitlines() if "stopped by" in line]
        assert process.returncode == 128 + signum, err
        assert line.startswith(f"launch.py: stopped by {signal.Signals(signum).name}")
        assert "Traceback" not in err
        saved = find_checkpoints(tmp_path / "run" / "checkpoints")
        if "all saved" in line:
            steps.append(saved[-1].step)
            assert f"after {steps[-1]} updates, all saved" in line
    assert steps == sorted(steps)
    assert steps[-1] > 0
    assert slowest < SECONDS
    record_property("signals answered", f"{len(moments)} of {len(moments)}")
    record_property("slowest answer", f"{slowest:.1f} s")
    record_property("updates that the run has got to", steps[-1])
