"""Tests that need a GPU: make test-gpu."""

import random
import signal
import time

import pytest
from command import run, start
from helpers import arguments, assert_same_run, steps_of, untimed

pytestmark = pytest.mark.gpu

PLATFORMS = "cuda,cpu"
GPU_FLAGS = ["--config.device=gpu", "--config.deterministic"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def uninterrupted(runs, hopper_file):
    return train(runs / "uninterrupted", hopper_file)


def train(workdir, data):
    command = ["launch.py", *arguments(workdir, data), *GPU_FLAGS]
    status, _, err = run(*command, JAX_PLATFORMS=PLATFORMS)
    assert status == 0, err
    return workdir


def test_two_runs_have_the_same_bits(uninterrupted, runs, hopper_file):
    assert_same_run(train(runs / "again", hopper_file), uninterrupted)


def test_a_killed_run_resumes_to_the_same_bits(uninterrupted, runs, hopper_file):
    workdir, rng = runs / "killed", random.Random(0)
    for _ in range(5):
        process = start(
            *("launch.py", *arguments(workdir, hopper_file), *GPU_FLAGS),
            JAX_PLATFORMS=PLATFORMS,
        )
        before = len(steps_of(workdir))
        while process.poll() is None and len(steps_of(workdir)) == before:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert_same_run(train(workdir, hopper_file), uninterrupted)


def test_the_first_updates_agree_with_the_cpus(uninterrupted, runs, hopper_file):
    status, _, err = run("launch.py", *arguments(runs / "on the CPU", hopper_file))
    assert status == 0, err
    ours, theirs = untimed(uninterrupted), untimed(runs / "on the CPU")
    assert ours[1]["step"] == theirs[1]["step"] == 50
    assert ours[1]["train_loss"] == pytest.approx(theirs[1]["train_loss"], rel=1e-3)
