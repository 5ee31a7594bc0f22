"""Runs of ESPER: the networks that make labels, and the policy trained on them."""

import numpy as np
import pytest
from helpers import (
    TINY_TRANSFORMER,
    assert_same_run,
    changed,
    restored,
    steps_of,
    train_until,
)

from dt_jax.config import default_config
from dt_jax.config.load import validate
from dt_jax.datasets.demo import collect_demo
from dt_jax.evaluation.policy import Policy
from dt_jax.runs.metrics import read_metrics
from dt_jax.training.dry_run import dry_run
from dt_jax.training.stages import stage_configs
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError


@pytest.fixture(scope="module")
def gambling(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "gambling.hdf5"
    collect_demo("gambling-demo", path, steps=60)
    return path


@pytest.fixture
def config(gambling):
    """Return a run of 4 updates after 3 of the clusters and 3 of their returns."""
    config = default_config(
        "esper",
        env_name="gambling-demo",
        data_path=str(gambling),
        **TINY_TRANSFORMER,
        seq_len=2,
        episode_len=3,
        batch_size=4,
        update_steps=4,
        warmup_steps=2,
        eval_every=4,
        eval_episodes=2,
        target_returns=(5.0,),
        reward_scale=0.2,
        log_every=1,
        checkpoint_every=2,
        num_workers=0,
        num_seeds=2,
        holdout_fraction=0.2,
        return_dim=8,
        return_layers=1,
        return_batch_size=4,
        cluster_updates=3,
        return_updates=3,
        label_rounding=0.0,
    )
    validate(config)
    return config.lock()


@pytest.fixture(scope="module")
def _finished_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def finished(config, _finished_folder):
    """Return the folder of the complete run; tests must not change it."""
    if not _finished_folder.exists():
        train(config, _finished_folder)
    return _finished_folder


def labels_of(workdir):
    with np.load(workdir / "labels" / "labels.npz") as file:
        return file["values"]


def test_each_seed_is_trained_on_labels_of_its_own(finished):
    labels = labels_of(finished)
    assert labels.shape == (2, 60)
    assert (labels[0] != labels[1]).any()
    assert steps_of(finished / "returns") == [2, 4, 6]


@pytest.mark.slow
def test_a_run_killed_in_any_phase_resumes_to_the_same_bits(finished, config, tmp_path):
    workdir = tmp_path / "run"
    for step in 3, 5:  # of the clusters, of their returns
        train_until(step, config, workdir)
        assert steps_of(workdir / "returns")[-1] == step - 1
    train_until(3, config, workdir)
    assert steps_of(workdir) == [2]
    train(config, workdir)
    assert_same_run(workdir / "returns", finished / "returns")
    assert_same_run(workdir, finished)
    np.testing.assert_array_equal(labels_of(workdir), labels_of(finished))


def test_running_statistics_are_saved_once_with_the_parameters(finished):
    params, state = (restored(finished / "returns", x) for x in ("params", "train"))
    assert any("statistics" in name for name in params)
    assert not any("['params']" in name for name in state)


def test_a_saved_policy_acts(finished):
    policy = Policy.load(finished, seed=11)
    policy.reset(5.0)
    assert policy.act(np.eye(7)[0]) is not None


def test_a_run_of_the_labels_networks_does_not_act(finished):
    with pytest.raises(UserError, match="does not act: name the run"):
        Policy.load(finished / "returns", seed=11)


def test_the_error_of_held_out_returns_is_measured(finished):
    last = read_metrics(finished / "returns" / "metrics.jsonl")[-1]
    seeds = [last[f"seed_{seed}/eval/holdout_return_mse"] for seed in (10, 11)]
    assert last["eval/holdout_return_mse"] == pytest.approx(np.mean(seeds))
    # In units of reward, where returns have a variance of about 40.
    assert 10 < last["eval/holdout_return_mse"] < 200


@pytest.mark.slow
def test_the_held_out_error_of_a_seed_is_on_its_own_labels(finished, config, tmp_path):
    train(changed(config, num_seeds=1, train_seed=11), tmp_path / "run")
    together = read_metrics(finished / "metrics.jsonl")[-1]
    alone = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    name = "eval/holdout_action_nll"
    assert together[f"seed_11/{name}"] == pytest.approx(alone[name], rel=1e-6)


@pytest.mark.slow
def test_labels_from_the_networks_of_another_run(finished, config, tmp_path):
    train(changed(config, labels_from=str(finished / "returns")), tmp_path / "run")
    assert not (tmp_path / "run" / "returns").exists()
    assert restored(tmp_path / "run", "params") == restored(finished, "params")


@pytest.mark.slow
def test_expected_returns_are_learned_from_transitions(config, tmp_path):
    config = changed(config, labels="expected", num_seeds=1, eval_episodes=0)
    (stage,) = stage_configs(config).values()
    assert (stage.agent, stage.update_steps) == ("expected_return", 3)
    train(config, tmp_path / "run")
    assert labels_of(tmp_path / "run").shape == (1, 60)


def test_a_dry_run_refuses_what_a_stage_refuses(config, tmp_path):
    message = r"^stage returns: config.reward_scale=0.0: expected a float32 number"
    with pytest.raises(UserError, match=message):
        dry_run(changed(config, reward_scale=0.0), tmp_path / "run")


@pytest.mark.slow
def test_a_dry_run_tries_every_stage(config, tmp_path, capsys):
    dry_run(config, tmp_path / "run")
    lines = [line for line in capsys.readouterr().out.splitlines() if "dry run" in line]
    assert len(lines) == 2
