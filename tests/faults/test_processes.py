"""Two processes that train one run: killed, interrupted, or different."""

import os
import random
import shutil
import signal
import socket
import time

import numpy as np
import pytest
from command import launch_command, run, start
from helpers import assert_same_run, steps_of, untimed

from dt_jax.runs.evaluations import last_evaluation

LONGER = [
    "--config.update_steps=120",
    "--config.log_every=2",
    "--config.eval_every=12",
    "--config.eval_episodes=3",  # not a multiple of 2
    "--config.checkpoint_every=4",
    "--config.holdout_fraction=0.2",
    "--config.num_workers=1",
]
MAX_SECONDS = 10  # until an interrupted run has ended


def start_two(data, workdir, *flags, second=(), **environment):
    """Start two processes of one run.

    Args:
      data: the dataset's file.
      workdir: the run's folder.
      *flags: of both.
      second: further flags of the second process.
      **environment: further variables of the second process.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = launch_command(data, workdir, "--distributed", *flags)
    return [
        start(
            *command,
            *(second if i else ()),
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(i),
            **(environment if i else {}),
        )
        for i in range(2)
    ]


def wait(processes):
    """Wait for processes; return their statuses and their stderr."""
    errs = [process.communicate(timeout=300)[1] for process in processes]
    errs = [
        "".join(
            line
            for line in err.splitlines(keepends=True)
            if not line.startswith("[Gloo]")
        )
        for err in errs
    ]
    return [process.returncode for process in processes], errs


def complete(data, workdir, *flags):
    """Run two processes to the end; return their stderr."""
    statuses, errs = wait(start_two(data, workdir, *flags))
    assert statuses == [0, 0], errs
    return errs


def newest(workdir):
    """Return the step of the newest valid checkpoint, 0 without one."""
    return max(steps_of(workdir), default=0)


def start_until(step, data, workdir):
    """Start two processes; return them when the checkpoint of `step` exists."""
    processes = start_two(data, workdir, *LONGER)
    while newest(workdir) < step:
        assert processes[0].poll() is None, wait(processes)
        time.sleep(0.1)
    return processes


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def undisturbed(runs, hopper_file):
    """Return the folder of a complete run of two processes."""
    errs = complete(hopper_file, runs / "two", *LONGER)
    assert errs[1] == ""  # only the main process reports
    return runs / "two"


def assert_same_evaluation(ours, theirs):
    """Assert that last evaluations have the same bits."""
    a, b = (last_evaluation(workdir)[1] for workdir in (ours, theirs))
    assert a.returns.tobytes() == b.returns.tobytes()


def assert_close(two, one, metrics, shape):
    """Compare a run of two processes with a run of one.

    Args:
      two: its folder.
      one: its folder.
      metrics: the ends of the names of metrics to compare.
      shape: of the returns of the last evaluation.
    """
    ours, theirs = untimed(two), untimed(one)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for row, expected in zip(ours, theirs, strict=True):
        assert row.keys() == expected.keys()
        for name in {name for name in row if name.endswith(metrics)}:
            assert row[name] == pytest.approx(expected[name], rel=1e-3)
    evaluation, expected = (last_evaluation(workdir)[1] for workdir in (two, one))
    assert evaluation.returns.shape == shape
    np.testing.assert_array_equal(evaluation.seeds, expected.seeds)
    np.testing.assert_allclose(evaluation.returns, expected.returns, rtol=0.05)


def test_two_processes_train_what_one_does(undisturbed, runs, hopper_file):
    """But for rounding: each has half of a batch, and half of the episodes."""
    status, _, err = run(*launch_command(hopper_file, runs / "one", *LONGER))
    assert status == 0, err
    metrics = "train_loss", "grad_norm", "holdout_action_mse"
    assert_close(undisturbed, runs / "one", metrics, (1, 3))
    status, out, err = run("-m", "dt_jax", "evaluate", undisturbed, "--episodes=1")
    assert status == 0, err
    assert "after 120 updates" in " ".join(out.split())


def test_seeds_and_halves_of_episodes_are_shared(runs, hopper_file):
    """Each process has one of the seeds, and plays two halves of its episodes."""
    flags = ["--config.num_seeds=2", "--config.eval_episodes=17"]
    flags += ["--config.update_steps=12", "--config.log_every=4"]
    two, one = runs / "seeds", runs / "seeds_of_one"
    complete(hopper_file, two, *flags)
    status, _, err = run(*launch_command(hopper_file, one, *flags))
    assert status == 0, err
    assert_close(two, one, "train_loss", (2, 1, 17))


def test_killed_processes_resume_to_the_same_bits(
    undisturbed, runs, hopper_file, record_property
):
    """Both are killed together, after a random number of saves."""
    workdir, draw, steps = runs / "killed", random.Random(0), [0]
    for _ in range(4):
        step = steps[-1] + 4 * draw.randint(1, 6)
        processes = start_until(step, hopper_file, workdir)
        time.sleep(draw.uniform(0, 0.3))
        for process in processes:
            process.send_signal(signal.SIGKILL)
        statuses, _ = wait(processes)
        assert statuses == [-signal.SIGKILL] * 2
        steps.append(newest(workdir))
    assert steps[-1] < 120
    complete(hopper_file, workdir, *LONGER)
    assert steps == sorted(steps)
    assert_same_run(workdir, undisturbed)
    assert_same_evaluation(workdir, undisturbed)
    record_property("kills of both survived", f"4 of 4, after updates {steps[1:]}")


def test_signal_to_one_process_stops_both(
    undisturbed, runs, hopper_file, record_property
):
    """Both stop at the same step; the run is saved and resumes to the same bits."""
    workdir, slowest, step = runs / "stopped", 0.0, 0
    for i, signum in enumerate((signal.SIGTERM, signal.SIGUSR1)):
        processes = start_until(newest(workdir) + 1, hopper_file, workdir)
        processes[i].send_signal(signum)
        sent = time.monotonic()
        statuses, errs = wait(processes)
        slowest = max(slowest, time.monotonic() - sent)
        assert statuses == [128 + signum] * 2, errs
        assert step < newest(workdir) < 120
        step = newest(workdir)
        for err in errs:
            assert f"interrupted by {signum.name} after {step} updates; saved" in err
    complete(hopper_file, workdir, *LONGER)
    assert_same_run(workdir, undisturbed)
    assert_same_evaluation(workdir, undisturbed)
    assert slowest < MAX_SECONDS
    record_property("both ended after a signal to one within", f"{slowest:.1f} s")


def test_loss_of_one_process_ends_the_other(
    undisturbed, runs, hopper_file, record_property
):
    """The other one ends with one line, and the run resumes to the same bits."""
    workdir, draw, slowest = runs / "lost", random.Random(1), 0.0
    for _ in range(4):  # during a save, an evaluation, ...
        processes = start_until(newest(workdir) + 1, hopper_file, workdir)
        time.sleep(draw.uniform(0, 0.3))
        processes[1].send_signal(signal.SIGKILL)
        sent = time.monotonic()
        (status, _), (err, _) = wait(processes)
        slowest = max(slowest, time.monotonic() - sent)
        assert status == 2, err
        assert "Traceback" not in err
        assert "another process of this run has exited" in err.splitlines()[-1]
    record_property("the other process ended within", f"{slowest:.1f} s, 4 of 4 times")
    assert slowest < MAX_SECONDS
    complete(hopper_file, workdir, *LONGER)
    assert_same_run(workdir, undisturbed)
    assert_same_evaluation(workdir, undisturbed)


def assert_refused(statuses, errs, messages):
    """Assert that each process ended with its message in one line."""
    assert statuses == [2, 2], errs
    for err, message in zip(errs, messages, strict=True):
        line = err.splitlines()[-1]
        assert line.startswith("launch.py: error: ")
        assert message in line
        assert "Traceback" not in err


def test_processes_that_differ_are_refused(tmp_path, hopper_file):
    for second, message in [
        (["--config.train_seed=11"], "differ in config.train_seed"),
        ([f"--workdir={tmp_path}/elsewhere"], "differ in workdir"),
    ]:
        statuses, errs = wait(start_two(hopper_file, tmp_path / "run", second=second))
        assert_refused(statuses, errs, [message, message])
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_failure_of_one_process_is_reported_by_both(tmp_path, hopper_file):
    """First the second one's file is corrupt; then the first cannot write its run."""
    valid, corrupt = tmp_path / "valid", tmp_path / "corrupt"
    for cache in (valid, corrupt):
        cache.mkdir()
        shutil.copy(hopper_file, cache / "hopper_medium-v2.hdf5")
    os.truncate(corrupt / "hopper_medium-v2.hdf5", 100)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DT_JAX_DATA", str(valid))
        processes = start_two(None, tmp_path / "run", DT_JAX_DATA=str(corrupt))
    statuses, errs = wait(processes)
    failed = "another process of this run has failed"
    assert_refused(statuses, errs, [failed, "hopper_medium-v2.hdf5"])
    (tmp_path / "run" / "versions.json").mkdir(parents=True)
    statuses, errs = wait(start_two(hopper_file, tmp_path / "run"))
    assert_refused(statuses, errs, ["versions.json", failed])


def test_fewer_devices_than_processes_are_refused(tmp_path, hopper_file):
    flag = "--config.num_devices=1"
    statuses, errs = wait(start_two(hopper_file, tmp_path / "run", flag))
    assert statuses == [2, 2], errs
    assert "the 2 processes have 2 devices, and all are used" in errs[0]


def test_one_process_cannot_be_distributed(tmp_path, hopper_file):
    command = launch_command(hopper_file, tmp_path / "run", "--distributed")
    status, _, err = run(*command)
    assert status == 2, err
    assert "JAX cannot join the other processes" in err
    status, _, err = run(*command, "--dry_run")
    assert "leave out --distributed" in err
    status, _, err = run(*command, JAX_NUM_PROCESSES="two")
    assert "JAX_NUM_PROCESSES=two: expected a number" in err
