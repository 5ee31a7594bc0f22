"""Runs and checkpoints that are none, are damaged, or are of something else."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
from command import refusal, run
from smallest import launch

from dt_jax.evaluation.policy import Policy
from dt_jax.utils.errors import UserError

EVALUATE = ["-m", "dt_jax", "evaluate"]


@pytest.fixture(scope="module")
def trained(hopper_file, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "trained"
    status, _, err = run(*launch(hopper_file, workdir))
    assert status == 0, err
    return workdir


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copied")


def contents(folder):
    return {
        path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def refused(folder, *command, words, **environment):
    """Run a command that must be refused; nothing in the folder may change."""
    before = contents(folder)
    line = refusal(*command, **environment)
    for word in words:
        assert word in line
    assert ": error: " in line
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--episodes=x", ["--episodes=x: expected an integer from 0"]),
        ("--episodes=-1", ["--episodes=-1: expected an integer from 0"]),
        ("--episodes=0", ["nothing to play", "give --episodes"]),
        ("--episodes=1000000000", ["an evaluation of eval_episodes=1000000000", "GB"]),
        ("--seed=-1", ["--seed=-1: expected an integer from 0"]),
        ("--target_returns=", ["nothing to play", "give --target_returns"]),
        ("--target_returns=nan", ["--target_returns=(nan,): expected finite"]),
        ("--target_returns=5,5", ["--target_returns=(5.0, 5.0)", "all different"]),
        ("--reference_scores=3", ["--reference_scores=(3.0,): expected two"]),
        ("--device=abacus", ["--device=abacus: expected one of auto, cpu"]),
        ("--env_backend=x", ["--env_backend=x: expected one of auto, gym"]),
        ("--env_name=hoper-medium", ["'hoper-medium'", "nearest: hopper-medium"]),
        ("--env_name=Minari:a/b-v0", ["'Minari:a/b-v0'", "begin with 'minari:'"]),
        ("--env_name=pen-human-v1", ["of 11 and actions of 3", "has 45 and 24"]),
        ("--env_name=CartPole-v1", ["actions of the kind Discrete", "only vectors"]),
        ("--checkpoint=7", ["no checkpoint '7'", "there are: last, best, 2"]),
        ("--checkpoint=../../x", ["no checkpoint '../../x'", "last, best, 2"]),
        (
            "--env_name=broken_environments:RaisesInStep-v0",
            ["RaisesInStep-v0 failed at step 8", "ZeroDivisionError"],
        ),
    ],
)
def test_evaluate(trained, argument, words):
    ours = {"PYTHONPATH": "tests/faults"}
    refused(trained, *EVALUATE, trained, argument, words=words, **ours)


def changed(**values):
    return lambda text: json.dumps(json.loads(text) | values).encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: len(text) // 2], ["that is no JSON"]),
        (lambda text: b"", ["that is no JSON"]),
        (lambda text: b"\xff\xfe\0", ["that is no JSON"]),
        (lambda text: b"[" * 100_000, ["that is no JSON"]),
        (lambda text: b"[1, 2]", ["has no keys"]),
        (lambda text: b"{}", ["without attention_dropout", "another version"]),
        (changed(rotary=True), ["with rotary", "another version of dt_jax"]),
        (changed(batch_size=-1), ["batch_size=-1", "an integer from 1"]),
        (changed(learning_rate=float("nan")), ["learning_rate=nan", "number above 0"]),
        (changed(betas={"a": 1}), ["betas", "two numbers"]),
        (changed(env_name=None), ["no environment: name one by --env_name"]),
        (
            changed(env_name=None, target_returns=None),
            ["name one by --env_name, and give --target_returns"],
        ),
    ],
)
def test_evaluate_with_a_config_that_is_damaged(copied, change, words):
    path = copied / "config.json"
    path.write_bytes(change(path.read_bytes()))
    refused(copied, *EVALUATE, copied, words=words)


def test_evaluate_without_a_run(tmp_path):
    words = ["config.json", "the folder of a run"]
    refused(tmp_path, *EVALUATE, tmp_path, words=words)
    refused(tmp_path, *EVALUATE, tmp_path / "nowhere", words=words)


def test_evaluate_without_a_checkpoint(copied):
    shutil.rmtree(copied / "checkpoints")
    refused(copied, *EVALUATE, copied, words=["no checkpoint in", "copied/checkpoints"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is no checkpoint of CORL's", "not the whole file"]),
        (b"not a checkpoint", ["is no checkpoint of CORL's", "name another file"]),
        (pickle.dumps(os.getcwd), ["has more than arrays in it"]),
        ("half", ["is no checkpoint of CORL's", "not the whole file"]),
        ("another", ["missing", "'action_emb.bias'"]),
        ("keyless", ["which has model_state, state_mean, state_std"]),
    ],
)
def test_init_from_a_file_that_is_none_of_corls(tmp_path, hopper_file, content, words):
    torch = pytest.importorskip("torch")
    path = tmp_path / "dt_checkpoint.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        saved = {"model_state": {"a": torch.zeros(9)}, "state_std": np.ones((1, 11))}
        if content != "keyless":
            saved["state_mean"] = np.zeros((1, 11))
        torch.save(saved, path)
        if content == "half":
            os.truncate(path, path.stat().st_size // 2)
    command = launch(hopper_file, tmp_path / "run")
    refused(tmp_path, *command, f"--config.init_from={path}", words=[str(path), *words])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.embedding_dim=16", ["trained with embedding_dim=8 (here 16)"]),
        ("--config.init_from={}/eval", ["eval", "no checkpoint in"]),
        ("--config.init_from={}/checkpoints/7", ["no checkpoint '7'", "last, best"]),
        ("--config.init_from={}/config.json", ["config.json", "CORL's"]),
    ],
)
def test_init_from_another_run(trained, tmp_path, hopper_file, argument, words):
    command = launch(hopper_file, tmp_path / "run")
    command += [f"--config.init_from={trained}", argument.format(trained)]
    refused(trained, *command, words=words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04", "npy", "keys"])
def test_a_complete_run_whose_evaluation_is_damaged(copied, hopper_file, content):
    path = copied / "eval" / "2.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with path.open("wb") as file:
            np.save(file, 1) if content == "npy" else np.savez(file, returns=1)
    command = launch(hopper_file, copied)
    refused(copied, *command, words=[str(path), " it"])


@pytest.mark.parametrize("line", [b"{}\n", b"garbage\n", b"\xff\xfe\n", b"[1]\n"])
def test_a_complete_run_whose_metrics_are_damaged(copied, hopper_file, line):
    path = copied / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + line)
    refused(copied, *launch(hopper_file, copied), words=[f"{path}, line 3", "remove"])


def test_policy_load(trained, copied, tmp_path):
    shutil.rmtree(copied / "checkpoints")
    for workdir, checkpoint, told in [
        (tmp_path / "nowhere", "last", "is it the folder of a run?"),
        (tmp_path, "last", "is it the folder of a run?"),
        (copied, "best", "is it the folder of a run?"),
        (trained, 7, "no checkpoint 7"),
        (trained, "../2", "no checkpoint '../2'"),
        (trained / "config.json", "last", "is it the folder of a run?"),
    ]:
        with pytest.raises(UserError, match=told) as caught:
            Policy.load(workdir, checkpoint)
        assert "\n" not in str(caught.value)
