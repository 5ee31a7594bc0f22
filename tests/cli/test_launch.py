"""launch.py and evaluate, as a user starts them."""

import signal
import time
from pathlib import Path

import pytest
from command import refusal, run, start
from helpers import arguments, assert_same_run, steps_of

# A proxy at a port where nothing listens.
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
NO_NETWORK["no_proxy"] = ""

# An agent in a user's file: its actions are constant.
AGENT = """
from dataclasses import dataclass
import jax.numpy as jnp
import dt_jax
from dt_jax.agents.base import Agent, TrainState
from dt_jax.config import default_config

@dataclass(frozen=True)
class Constant(Agent):
    normalizer: object
    episode_len: int
    KEYS = ()
    batch_fields = ("actions",)
    context_len = 1
    conditioned = False

    @classmethod
    def from_config(cls, config, normalizer):
        return cls(normalizer, config.episode_len)

    def init(self, key):
        params = {"action": jnp.zeros(self.action_size)}
        return TrainState(jnp.int32(0), params, (), key)

    def update(self, state, batch):
        error = jnp.mean(batch.actions[:, 0]) - state.params["action"]
        params = {"action": state.params["action"] + 0.1 * error}
        state = state.replace(step=state.step + 1, params=params)
        return state, {"error": jnp.abs(error).mean()}

    def start(self, target_returns, keys):
        return keys

    def act(self, params, context, observations, rewards, done):
        shape = (len(observations), self.action_size)
        return context, jnp.broadcast_to(params["action"][None], shape)

dt_jax.register("constant", Constant)
"""
CONFIG = """
def get_config():
    return default_config("constant", env_name="hopper-demo", update_steps=4)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def uninterrupted(runs, hopper_file):
    """Return the folder of a run that was not interrupted."""
    status, out, err = run("launch.py", *arguments(runs / "uninterrupted", hopper_file))
    assert status == 0, err
    assert "hopper.hdf5" in out
    assert "normalised score" in out
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


def test_a_complete_run_is_reported(uninterrupted, hopper_file):
    status, out, _ = run("launch.py", *arguments(uninterrupted, hopper_file))
    assert status == 0
    assert "this run is complete, with 400 updates" in out


def test_evaluate_prints_a_table_or_one_line(uninterrupted):
    command = ["-m", "dt_jax", "evaluate", str(uninterrupted)]
    status, out, err = run(*command, "--target_returns=40,3.5", "--episodes=3")
    assert status == 0, err
    for part in ("hopper.hdf5", "last checkpoint", "after 400 updates", "40", "3.5"):
        assert part in " ".join(out.split())
    assert "no checkpoint '7'" in refusal(*command, "--checkpoint=7")
    assert "target_returns=a" in refusal(*command, "--target_returns=a")
    assert "observations of 11 and actions of 3 numbers" in refusal(
        *command, "--env_name=halfcheetah-medium-v2"
    )


def test_evaluate_needs_a_runs_folder(tmp_path):
    line = refusal("-m", "dt_jax", "evaluate", str(tmp_path))
    assert line.startswith("python -m dt_jax evaluate: error: ")
    assert f"is {tmp_path} a run's folder?" in line


def train_without_network(tmp_path, reference):
    """Train on a dataset that is not in the cache; return the error."""
    status, _, err = run(
        "launch.py",
        f"--config={reference}",
        f"--workdir={tmp_path / 'run'}",
        DT_JAX_DATA=str(tmp_path / "cache"),
        **NO_NETWORK,
    )
    assert status == 2
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "cache").glob("[!.]*"))
    return err.splitlines()[-1]  # after the attempts


def test_without_network_the_missing_file_is_named_with_its_path(tmp_path):
    line = train_without_network(tmp_path, "configs/hopper.py:medium")
    assert "hopper_medium-v2.hdf5: download failed" in line
    assert f"copy the file to {tmp_path / 'cache' / 'hopper_medium-v2.hdf5'}" in line


def test_without_d4rls_file_the_demo_is_proposed_but_not_used(tmp_path):
    line = train_without_network(tmp_path, "configs/antmaze.py")
    name = "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed.hdf5"
    assert f"copy the file to {tmp_path / 'cache' / name}" in line
    assert "--config=configs/antmaze.py:umaze-demo" in line


def test_the_device_of_the_configuration_is_used(tmp_path, hopper_file):
    """It takes precedence over JAX_PLATFORMS."""
    command = ["launch.py", *arguments(tmp_path / "run", hopper_file)]
    if not any(Path("/dev").glob("nvidia*")):
        line = refusal(*command, "--config.device=gpu")
        assert "config.device=gpu: JAX " in line
        assert "requirements-cuda.txt" in line


def test_a_file_in_the_place_of_the_folder_is_reported(tmp_path, hopper_file):
    (tmp_path / "file").write_text("in the way")
    line = refusal("launch.py", *arguments(tmp_path / "file" / "run", hopper_file))
    assert f"{tmp_path / 'file'} is not a folder" in line


def test_a_malformed_data_file_is_named(tmp_path):
    file = tmp_path / "notes.hdf5"
    file.write_text("not HDF5")
    line = refusal("launch.py", *arguments(tmp_path / "run", file))
    assert f"{file}: corrupt, or not an HDF5 or .npz file" in line
    assert not (tmp_path / "run").exists()


def test_an_agent_of_a_users_file_is_trained_and_evaluated(tmp_path, hopper_file):
    """A config file may register it; other commands need --agents."""
    file, workdir = tmp_path / "constant.py", tmp_path / "run"
    file.write_text(AGENT + CONFIG)
    status, _, err = run(
        "launch.py",
        f"--config={file}",
        f"--config.data_path={hopper_file}",
        "--config.eval_episodes=1",
        f"--workdir={workdir}",
    )
    assert status == 0, err
    evaluate = ["-m", "dt_jax", "evaluate", workdir]
    line = refusal(*evaluate)
    assert "unknown agent 'constant'" in line
    assert "--agents=FILE.py" in line
    status, out, err = run(*evaluate, f"--agents={file}", "--episodes=2")
    assert status == 0, err
    assert "after 4 updates" in " ".join(out.split())


@pytest.mark.parametrize(
    ("content", "reason"),
    [("import nowhere", "No module named 'nowhere'"), ("raise SystemExit(3)", "3")],
)
def test_a_wrong_agents_file_is_reported(tmp_path, content, reason):
    (tmp_path / "mine.py").write_text(content)
    line = refusal("launch.py", f"--agents={tmp_path}/mine.py", "--help")
    assert line.startswith(f"launch.py: error: --agents={tmp_path}/mine.py: ")
    assert reason in line
