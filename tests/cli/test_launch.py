"""launch.py and evaluate, as a user starts them."""

import re
import signal
import time
from pathlib import Path

import pytest
from command import launch_command, refusal, run, start
from helpers import arguments, assert_same_run, steps_of

from dt_jax.cli.evaluate import main as evaluate
from dt_jax.cli.train import main as train
from dt_jax.utils.errors import UserError

# A proxy at a port where nothing listens.
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
NO_NETWORK["no_proxy"] = ""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def uninterrupted(runs, hopper_file):
    """Return the folder of a run that was not interrupted."""
    status, _, err = run("launch.py", *arguments(runs / "uninterrupted", hopper_file))
    assert status == 0, err
    return runs / "uninterrupted"


@pytest.mark.slow  # tests/faults/test_kill.py kills at every point
def test_a_killed_run_resumes_to_the_same_bits(uninterrupted, runs, hopper_file):
    """SIGKILL in the middle, then the same command again."""
    workdir = runs / "killed"
    process = start("launch.py", *arguments(workdir, hopper_file))
    deadline = time.monotonic() + 200
    while not steps_of(workdir):  # so early none is being deleted
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert steps_of(workdir)[-1] < 400

    status, out, err = run("launch.py", *arguments(workdir, hopper_file))
    assert status == 0, err
    assert "resuming from the checkpoint at step" in out
    assert_same_run(workdir, uninterrupted)


def test_train_and_evaluate_print_a_table_or_one_line(runs, hopper_file):
    workdir = runs / "short"
    status, out, err = run(*launch_command(hopper_file, workdir))
    assert status == 0, err
    assert "hopper.hdf5" in out
    assert "normalised score" in out
    command = ["-m", "dt_jax", "evaluate", str(workdir)]
    status, out, err = run(*command, "--target_returns=40,3.5", "--episodes=3")
    assert status == 0, err
    for part in ("hopper.hdf5", "last checkpoint", "after 2 updates", "40", "3.5"):
        assert part in " ".join(out.split())
    assert "no checkpoint '7'" in refusal(*command, "--checkpoint=7")
    for flag, message in (
        ("--target_returns=a", "target_returns=a"),
        (
            "--env_name=halfcheetah-medium-v2",
            "observations of 11 and actions of 3 numbers",
        ),
    ):
        with pytest.raises(UserError, match=message):
            evaluate([str(workdir), flag])


@pytest.mark.parametrize(
    ("reference", "file", "words"),
    [
        ("configs/hopper.py", "hopper_medium-v2.hdf5", ": download failed"),
        (
            "configs/antmaze.py",
            "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed.hdf5",
            "--config=configs/antmaze.py:umaze-demo",  # which is not used
        ),
    ],
)
def test_without_network_the_missing_file_is_named_with_its_path(
    tmp_path, monkeypatch, reference, file, words
):
    cache, workdir = tmp_path / "cache", tmp_path / "run"
    for name, value in {**NO_NETWORK, "DT_JAX_DATA": str(cache)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("dt_jax.datasets.load._RETRIES", 0)  # after seconds
    with pytest.raises(UserError, match=re.escape(words)) as error:
        train([f"--config={reference}", f"--workdir={workdir}"])
    assert f"copy the file to {cache / file}" in str(error.value)
    assert not workdir.exists()
    assert not list(cache.glob("[!.]*"))


def test_the_device_of_the_configuration_is_used(tmp_path, hopper_file):
    """It takes precedence over JAX_PLATFORMS."""
    command = ["launch.py", *arguments(tmp_path / "run", hopper_file)]
    if not any(Path("/dev").glob("nvidia*")):
        line = refusal(*command, "--config.device=gpu")
        assert "config.device=gpu: JAX " in line
        assert "requirements-cuda.txt" in line


@pytest.mark.parametrize(
    ("content", "reason"),
    [("import nowhere", "No module named 'nowhere'"), ("raise SystemExit(3)", "3")],
)
def test_a_wrong_agents_file_is_reported(tmp_path, content, reason):
    (tmp_path / "mine.py").write_text(content)
    line = refusal("launch.py", f"--agents={tmp_path}/mine.py", "--help")
    assert line.startswith(f"launch.py: error: --agents={tmp_path}/mine.py, line 1: ")
    assert reason in line
