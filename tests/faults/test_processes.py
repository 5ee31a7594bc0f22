"""Two processes that train one run: killed, asked to stop, unlike each other."""

import os
import random
import shutil
import signal
import socket
import time

import numpy as np
import pytest
from command import run, start
from helpers import restored, untimed
from smallest import launch

from dt_jax.runs.checkpoint import find_checkpoints
from dt_jax.runs.evaluations import last_evaluation

LONGER = [
    "--config.update_steps=120",
    "--config.log_every=2",
    "--config.eval_every=12",
    "--config.eval_episodes=3",  # no multiple of 2
    "--config.checkpoint_every=4",
    "--config.holdout_fraction=0.2",
    "--config.num_workers=1",
]
SECONDS = 10  # in which a run answers a signal


def start_two(data, workdir, *more, second=(), **of_the_second):
    """Start two processes of one run; some flags and variables are the second's."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [
        start(
            *launch(data, workdir, "--distributed", *more, *(second if i else ())),
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(i),
            **(of_the_second if i else {}),
        )
        for i in range(2)
    ]


def end(processes):
    """Wait for them; return their statuses and what they said on stderr."""
    said = [process.communicate(timeout=300)[1] for process in processes]
    said = [
        "".join(
            line
            for line in err.splitlines(keepends=True)
            if not line.startswith("[Gloo]")
        )
        for err in said
    ]
    return [process.returncode for process in processes], said


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def undisturbed(runs, hopper_file):
    workdir = runs / "two"
    statuses, said = end(start_two(hopper_file, workdir, *LONGER))
    assert statuses == [0, 0], said
    assert said[1] == ""  # one of them tells
    return workdir


def test_two_processes_train_what_one_does(undisturbed, runs, hopper_file):
    """But for rounding: each has half of a batch, and half of the episodes."""
    status, _, err = run(*launch(hopper_file, runs / "one", *LONGER))
    assert status == 0, err
    ours, theirs = untimed(undisturbed), untimed(runs / "one")
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name in {"train_loss", "grad_norm", "eval/holdout_action_mse"} & set(mine):
            assert mine[name] == pytest.approx(other[name], rel=1e-3)
    ours, theirs = (
        last_evaluation(workdir)[1] for workdir in (undisturbed, runs / "one")
    )
    assert ours.returns.shape == (1, 3)
    np.testing.assert_array_equal(ours.seeds, theirs.seeds)
    np.testing.assert_allclose(ours.returns, theirs.returns, rtol=0.05)
    status, out, err = run("-m", "dt_jax", "evaluate", undisturbed, "--episodes=1")
    assert status == 0, err
    assert "after 120 updates" in " ".join(out.split())


def test_seeds_and_halves(runs, hopper_file):
    """Each process has one of the seeds, and plays two halves of its episodes."""
    flags = ["--config.num_seeds=2", "--config.eval_episodes=17"]
    flags += ["--config.update_steps=12", "--config.log_every=4"]
    statuses, said = end(start_two(hopper_file, runs / "seeds", *flags))
    assert statuses == [0, 0], said
    status, _, err = run(*launch(hopper_file, runs / "seeds of one", *flags))
    assert status == 0, err
    ours, theirs = untimed(runs / "seeds"), untimed(runs / "seeds of one")
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name in {name for name in mine if name.endswith("train_loss")}:
            assert mine[name] == pytest.approx(other[name], rel=1e-3)
    ours, theirs = (
        last_evaluation(runs / name)[1] for name in ("seeds", "seeds of one")
    )
    assert ours.returns.shape == (2, 1, 17)
    np.testing.assert_array_equal(ours.seeds, theirs.seeds)
    np.testing.assert_allclose(ours.returns, theirs.returns, rtol=0.05)


def test_killed_again_and_again(undisturbed, runs, hopper_file, record_property):
    """Both at once, after a random number of saves; at the end nobody can tell."""
    workdir, draw, steps = runs / "killed", random.Random(0), [0]
    for _ in range(4):
        processes = start_two(hopper_file, workdir, *LONGER)
        until = steps[-1] + 4 * draw.randint(1, 6)
        while newest(workdir) < until:
            assert processes[0].poll() is None, end(processes)
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.3))
        for process in processes:
            process.send_signal(signal.SIGKILL)
        statuses, _ = end(processes)
        assert statuses == [-signal.SIGKILL] * 2
        steps.append(newest(workdir))
    assert steps[-1] < 120
    statuses, said = end(start_two(hopper_file, workdir, *LONGER))
    assert statuses == [0, 0], said
    assert steps == sorted(steps)
    assert_same_end(workdir, undisturbed)
    record_property("kills of both survived", f"4 of 4, after updates {steps[1:]}")


def test_both_stop_when_one_is_asked_to(
    undisturbed, runs, hopper_file, record_property
):
    """At the same step, with all saved; then they go on as if undisturbed."""
    workdir, slowest, said_step = runs / "stopped", 0.0, 0
    for asked, signum in enumerate((signal.SIGTERM, signal.SIGUSR1)):
        seen = newest(workdir)
        processes = start_two(hopper_file, workdir, *LONGER)
        while newest(workdir) == seen:
            assert processes[0].poll() is None, end(processes)
            time.sleep(0.05)
        processes[asked].send_signal(signum)
        sent = time.monotonic()
        statuses, said = end(processes)
        slowest = max(slowest, time.monotonic() - sent)
        assert statuses == [128 + signum] * 2, said
        step = newest(workdir)
        assert said_step < step < 120
        said_step = step
        for err in said:
            assert f"stopped by {signum.name} after {step} updates, all saved" in err
    statuses, said = end(start_two(hopper_file, workdir, *LONGER))
    assert statuses == [0, 0], said
    assert_same_end(workdir, undisturbed)
    assert slowest < SECONDS
    record_property("both answered a signal to one within", f"{slowest:.1f} s")


def newest(workdir):
    """Return the step of the newest whole checkpoint, 0 without one."""
    return max((c.step for c in find_checkpoints(workdir / "checkpoints")), default=0)


def assert_same_end(ours, theirs):
    """To the same bits."""
    for item in ("params", "train"):
        assert restored(ours, item) == restored(theirs, item)
    assert untimed(ours) == untimed(theirs)
    a, b = (last_evaluation(workdir)[1] for workdir in (ours, theirs))
    assert a.returns.tobytes() == b.returns.tobytes()


def test_one_alone_is_not_left_waiting(undisturbed, runs, hopper_file, record_property):
    """One is killed: the other ends in one line, and the run goes on afterwards."""
    workdir, draw, slowest = runs / "alone", random.Random(1), 0.0
    for _ in range(4):  # inside a save, an evaluation, ...
        before = newest(workdir)
        processes = start_two(hopper_file, workdir, *LONGER)
        while newest(workdir) == before:
            assert processes[0].poll() is None, end(processes)
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.3))
        processes[1].send_signal(signal.SIGKILL)
        sent = time.monotonic()
        (status, _), (said, _) = end(processes)
        slowest = max(slowest, time.monotonic() - sent)
        assert status == 2, said
        assert "Traceback" not in said
        assert "another process" in said.splitlines()[-1]
    record_property("the other one ended within", f"{slowest:.1f} s, 4 of 4 times")
    assert slowest < SECONDS
    statuses, said = end(start_two(hopper_file, workdir, *LONGER))
    assert statuses == [0, 0], said
    assert_same_end(workdir, undisturbed)


def test_unlike_each_other(tmp_path, hopper_file):
    for second, told in [
        (["--config.train_seed=11"], "differ in config.train_seed"),
        ([f"--workdir={tmp_path}/elsewhere"], "differ in workdir"),
    ]:
        statuses, said = end(start_two(hopper_file, tmp_path / "run", second=second))
        assert_refused(statuses, said, [told, told])
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_one_fails(tmp_path, hopper_file):
    """The second has a broken file; then the first can't write its folder."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for cache in (whole, broken):
        cache.mkdir()
        shutil.copy(hopper_file, cache / "hopper_medium-v2.hdf5")
    os.truncate(broken / "hopper_medium-v2.hdf5", 100)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DT_JAX_DATA", str(whole))
        processes = start_two(None, tmp_path / "run", DT_JAX_DATA=str(broken))
    statuses, said = end(processes)
    failed = "another process of this run has failed"
    assert_refused(statuses, said, [failed, "hopper_medium-v2.hdf5"])
    (tmp_path / "run" / "config.json").mkdir(parents=True)
    statuses, said = end(start_two(hopper_file, tmp_path / "run"))
    assert_refused(statuses, said, ["config.json", failed])


def assert_refused(statuses, said, told):
    """Each in one line."""
    assert statuses == [2, 2], said
    for err, expected in zip(said, told, strict=True):
        line = err.splitlines()[-1]
        assert line.startswith("launch.py: error: ")
        assert expected in line
        assert "Traceback" not in err


def test_all_their_devices_are_used(tmp_path, hopper_file):
    flag = "--config.num_devices=1"
    statuses, said = end(start_two(hopper_file, tmp_path / "run", flag))
    assert statuses == [2, 2], said
    assert "the 2 processes have 2 devices, and all are used" in said[0]


def test_alone_and_told_to_join(tmp_path, hopper_file):
    command = launch(hopper_file, tmp_path / "run", "--distributed")
    status, _, err = run(*command)
    assert status == 2, err
    assert "JAX can't join the other processes" in err
    status, _, err = run(*command, "--dry_run")
    assert "leave out --distributed" in err
    status, _, err = run(*command, JAX_NUM_PROCESSES="two")
    assert "JAX_NUM_PROCESSES=two: expected a number" in err
