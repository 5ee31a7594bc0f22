"""Folders that are not runs, corrupt files of runs, and runs of something else."""

import os
import pickle
import shutil

import numpy as np
import pytest
from command import launch_command, refusal, run

from dt_jax.evaluation.policy import Policy
from dt_jax.runs import manifest
from dt_jax.utils.errors import UserError

EVALUATE = ["-m", "dt_jax", "evaluate"]


@pytest.fixture(scope="module")
def trained(hopper_file, tmp_path_factory):
    """Return the folder of a complete run; tests must not change it."""
    workdir = tmp_path_factory.mktemp("runs") / "trained"
    status, _, err = run(*launch_command(hopper_file, workdir))
    assert status == 0, err
    return workdir


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copied")


def contents(folder):
    return {
        path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def assert_refused(folder, *command, words, **environment):
    """Run a command that must fail; no file in the folder may change."""
    before = contents(folder)
    line = refusal(*command, **environment)
    for word in words:
        assert word in line
    assert ": error: " in line
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--episodes=-1", ["--episodes=-1: expected an integer from 0"]),
        ("--episodes=0", ["nothing to play", "give --episodes"]),
        ("--seed=-1", ["--seed=-1: expected an integer from 0"]),
        ("--target_returns=", ["nothing to play", "give --target_returns"]),
        ("--target_returns=5,5", ["--target_returns=(5.0, 5.0)", "all different"]),
        ("--reference_scores=3", ["--reference_scores=(3.0,): expected two"]),
        ("--device=abacus", ["--device=abacus: expected one of auto, cpu"]),
        ("--env_backend=x", ["--env_backend=x: expected one of auto, gym"]),
        ("--env_name=Minari:a/b-v0", ["'Minari:a/b-v0'", "begin with 'minari:'"]),
        ("--env_name=pen-human-v1", ["of 11 and actions of 3", "has 45 and 24"]),
        ("--checkpoint=../../x", ["no checkpoint '../../x'", "last, best, 2"]),
        (
            "--env_name=broken_environments:RaisesInStep-v0",
            ["RaisesInStep-v0 failed at step 8", "ZeroDivisionError"],
        ),
    ],
)
def test_wrong_argument_of_evaluate(trained, argument, words):
    path = {"PYTHONPATH": "tests/faults"}
    assert_refused(trained, *EVALUATE, trained, argument, words=words, **path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rotary": True}, ["with unknown keys rotary", "another version of dt_jax"]),
        ({"agent": "mine"}, ["unknown agent 'mine'", "--agents=FILE.py"]),
        ({"env_name": None}, ["no environment: name one with --env_name"]),
        (
            {"env_name": None, "target_returns": None},
            ["name one with --env_name, and give --target_returns"],
        ),
    ],
)
def test_evaluate_of_a_run_with_another_configuration(copied, change, words):
    folder = copied / "checkpoints"
    score, record = manifest.read(folder, 2)
    record["config"] |= change
    manifest.write(folder, 2, manifest.Manifest(score, record))
    assert_refused(copied, *EVALUATE, copied, words=words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is not a checkpoint of CORL", "truncated"]),
        (b"not a checkpoint", ["is not a checkpoint of CORL", "choose another file"]),
        (pickle.dumps(os.getcwd), ["more than arrays in it"]),
        ("truncated", ["is not a checkpoint of CORL", "truncated"]),
        ("another network", ["'action_emb.bias'"]),
        ("without a key", ["expected a dict model_state, state_mean and state_std"]),
    ],
)
def test_init_from_a_file_that_is_not_from_corl(tmp_path, hopper_file, content, words):
    torch = pytest.importorskip("torch")
    path = tmp_path / "dt_checkpoint.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        saved = {"model_state": {"a": torch.zeros(9)}, "state_std": np.ones((1, 11))}
        if content != "without a key":
            saved["state_mean"] = np.zeros((1, 11))
        torch.save(saved, path)
        if content == "truncated":
            os.truncate(path, path.stat().st_size // 2)
    command = launch_command(
        hopper_file, tmp_path / "run", f"--config.init_from={path}"
    )
    assert_refused(tmp_path, *command, words=[str(path), *words])
    assert not (tmp_path / "run").exists()


def test_complete_run_with_a_corrupt_evaluation(copied, hopper_file):
    path = copied / "eval" / "2.npz"
    path.write_bytes(b"garbage")
    words = [f"{path} is not a valid evaluation: remove it"]
    assert_refused(copied, *launch_command(hopper_file, copied), words=words)


def test_complete_run_with_corrupt_metrics(copied, hopper_file):
    path = copied / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n")
    words = [f"{path}, line 3: not a row of metrics; remove that line"]
    assert_refused(copied, *launch_command(hopper_file, copied), words=words)


def test_policy_load_names_what_is_missing(trained, copied, tmp_path):
    shutil.rmtree(copied / "checkpoints")
    for workdir, checkpoint, message in [
        (tmp_path / "nowhere", "last", "a run's folder?"),
        (trained.parent, "last", "has no checkpoint, only runs in it"),
        (copied, "best", "a run's folder?"),
        (trained, 7, "no checkpoint 7"),
        (trained, "../2", "no checkpoint '../2'"),
        (trained / "config.json", "last", "a run's folder?"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            Policy.load(workdir, checkpoint)
        assert "\n" not in str(error.value)
