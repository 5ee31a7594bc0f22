"""What only a GPU can show: make test-gpu."""

import random
import signal
import time

import pytest
from command import run, start
from test_launch import arguments, restored, untimed

from dt_jax.runs.checkpoint import find_checkpoints

pytestmark = pytest.mark.gpu

PLATFORMS = "cuda,cpu"
ON_THE_GPU = ["--config.device=gpu", "--config.deterministic"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def undisturbed(runs, hopper_file):
    return train(runs / "whole", hopper_file)


def train(workdir, data, *more):
    command = arguments(workdir, data)
    status, _, err = run(
        "launch.py", *command, *ON_THE_GPU, *more, JAX_PLATFORMS=PLATFORMS
    )
    assert status == 0, err
    return workdir


def test_two_runs_have_the_same_bits(undisturbed, runs, hopper_file):
    again = train(runs / "again", hopper_file)
    assert restored(again, "params") == restored(undisturbed, "params")
    assert untimed(again) == untimed(undisturbed)


def test_a_run_that_is_killed_ends_with_the_same_bits(undisturbed, runs, hopper_file):
    workdir, draw = runs / "killed", random.Random(0)
    for _ in range(5):
        process = start(
            *("launch.py", *arguments(workdir, hopper_file), *ON_THE_GPU),
            JAX_PLATFORMS=PLATFORMS,
        )
        before = len(find_checkpoints(workdir / "checkpoints"))
        while (
            process.poll() is None
            and len(find_checkpoints(workdir / "checkpoints")) == before
        ):
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    train(workdir, hopper_file)
    for item in ("params", "train"):
        assert restored(workdir, item) == restored(undisturbed, item)
    assert untimed(workdir) == untimed(undisturbed)


def test_the_first_updates_are_the_cpus(undisturbed, runs, hopper_file):
    status, _, err = run("launch.py", *arguments(runs / "on the CPU", hopper_file))
    assert status == 0, err
    ours, theirs = untimed(undisturbed), untimed(runs / "on the CPU")
    assert ours[1]["step"] == theirs[1]["step"] == 50
    assert ours[1]["train_loss"] == pytest.approx(theirs[1]["train_loss"], rel=1e-3)
