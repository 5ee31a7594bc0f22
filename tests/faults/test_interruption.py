"""SIGINT, SIGTERM, SIGUSR1 and SIGHUP at random moments of the quickstart."""

import random
import signal
import time
from pathlib import Path

import pytest
from command import run, start, wait_until_it_listens
from helpers import steps_of

from dt_jax.utils.signals import SIGNALS

MAX_SECONDS = 10  # until an interrupted run has ended
PROGRAM = (
    "import signal, runpy, sys\n"
    # In the background or under nohup these are ignored, and would stay ignored.
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    "sys.argv[0] = 'launch.py'\n"
    "runpy.run_path('launch.py', run_name='__main__')\n"
)


@pytest.fixture(scope="module")
def start_quickstart(tmp_path_factory):
    """Return a function that starts the quickstart in a folder; its data is cached."""
    cache = str(tmp_path_factory.mktemp("cache"))
    out = f"{cache}/halfcheetah-demo.hdf5"
    status, _, err = run(
        "-m", "dt_jax", "collect", "halfcheetah-demo", f"--out={out}", "--steps=20000"
    )
    assert status == 0, err
    # More updates than are possible between all the signals.
    arguments = "-c", PROGRAM, "--config.update_steps=20000"
    return lambda workdir: start(*arguments, f"--workdir={workdir}", DT_JAX_DATA=cache)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_run_can_be_interrupted_at_any_moment(
    start_quickstart, tmp_path, record_property
):
    """One run, interrupted and resumed many times, by each signal in turn."""
    workdir = tmp_path / "run"
    rng, slowest, saved = random.Random(0), 0.0, [0]
    moments = [0.0, 0.5, 1.0, 2.0, 3.0, 5.0, *(rng.uniform(4, 24) for _ in range(9))]
    for i, moment in enumerate(moments):
        signum = SIGNALS[i % len(SIGNALS)]
        process = start_quickstart(workdir)
        wait_until_it_listens(process)
        if moment > 5:  # during the first evaluation or later
            while not (workdir / "metrics.jsonl").exists():
                time.sleep(0.1)
        time.sleep(moment)
        process.send_signal(signum)
        sent = time.monotonic()
        _, err = process.communicate(timeout=60)
        slowest = max(slowest, time.monotonic() - sent)
        assert err, (i, moment, process.returncode)
        (line,) = [line for line in err.splitlines() if "interrupted by" in line]
        assert process.returncode == 128 + signum, err
        name = signal.Signals(signum).name
        assert line.startswith(f"launch.py: interrupted by {name}")
        assert "Traceback" not in err
        if "; saved" in line:
            saved.append(steps_of(workdir)[-1])
            assert f"after {saved[-1]} updates; saved: run the same command" in line
    assert saved == sorted(saved)
    assert saved[-1] > 0
    assert slowest < MAX_SECONDS
    record_property("signals handled", f"{len(moments)} of {len(moments)}")
    record_property("slowest exit", f"{slowest:.1f} s")
    record_property("updates of the run in the end", saved[-1])
