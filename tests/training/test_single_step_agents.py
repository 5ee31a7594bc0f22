"""Agents of single steps: trained, killed, resumed, loaded, evaluated and reported."""

import jax
import numpy as np
import pytest
from helpers import assert_same_run, changed, restored, train_until

import dt_jax
from dt_jax.analysis.report import build_report, write_report
from dt_jax.config import default_config
from dt_jax.evaluation.policy import load_agent
from dt_jax.runs.metrics import read_metrics
from dt_jax.training.train import train

SMALL = {
    "bc": {"hidden_dim": 8, "hidden_layers": 1, "top_fraction": 0.5},
    "iql": {"critic_dim": 8, "critic_layers": 1, "actor_dropout": 0.1},
    "cql": {"critic_dim": 8, "critic_layers": 1, "cql_n_actions": 2},
}
METRICS = {
    "bc": {"train_loss", "learning_rate", "grad_norm"},
    "iql": {
        *("train_loss", "q_loss", "v_loss", "q_mean", "v_mean"),
        *("advantage_mean", "weight_mean"),
    },
    "cql": {
        *("train_loss", "q_loss", "conservative_loss", "q_mean"),
        *("temperature", "entropy"),
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(params=["bc", "iql", pytest.param("cql", marks=pytest.mark.slow)])
def config(request, small_config):
    """Return `small_config` for the agent, with held-out trajectories."""
    ours = default_config(request.param)
    shared = {name: small_config[name] for name in ours if name in small_config}
    shared |= {"holdout_fraction": 0.3, "batch_size": 16, "checkpoint_every": 4}
    return changed(ours, **shared | SMALL[request.param] | {"agent": request.param})


@pytest.fixture
def trained(config, folder):
    """Return the folder of an uninterrupted run of two seeds, trained on first use."""
    path = folder / config.agent
    if not path.exists():
        train(changed(config, num_seeds=2), path)
    return path


def test_a_killed_run_of_two_seeds_resumes_to_the_same_bits(config, trained, tmp_path):
    config = changed(config, num_seeds=2)
    train_until(7, config, tmp_path / "run")
    train(config, tmp_path / "run")
    assert_same_run(tmp_path / "run", trained)


@pytest.mark.slow
def test_a_killed_run_of_one_seed_resumes_to_the_same_bits(config, tmp_path):
    config = changed(config, eval_episodes=0, holdout_fraction=0.0)
    train(config, tmp_path / "uninterrupted")
    train_until(7, config, tmp_path / "run")
    train(config, tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "uninterrupted")


def test_its_metrics_are_logged_per_seed_and_finite(config, trained):
    last = read_metrics(trained / "metrics.jsonl")[-1]
    for name in (*METRICS[config.agent], "eval/return_mean", "eval/holdout_action_mse"):
        seeds = [last[f"seed_{seed}/{name}"] for seed in (10, 11)]
        assert last[name] == pytest.approx(np.mean(seeds))
    different = "q_mean" if config.agent == "iql" else "train_loss"
    assert last[f"seed_10/{different}"] != last[f"seed_11/{different}"]


def test_a_saved_policy_acts_without_a_target(config, trained):
    policy = dt_jax.Policy.load(trained, seed=11)
    policy.reset()
    first = policy.act(np.full(11, 0.1, np.float32))
    assert first.shape == (3,)
    assert np.abs(first).max() <= 1
    # It remembers nothing.
    policy.act(np.full(11, 5, np.float32), 1.0)
    again = policy.act(np.full(11, 0.1, np.float32), 1.0)
    np.testing.assert_array_equal(again, first)


def test_it_is_evaluated_and_reported(config, trained, tmp_path):
    result = dt_jax.evaluate(trained, episodes=2)
    assert np.isfinite(result.returns).all()
    write_report(build_report([trained]), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert config.agent in text
    assert "nan" not in text


def test_a_run_of_iql_saves_the_target_and_its_values(small_config, folder):
    trained = folder / "iql"
    params, train = restored(trained, "params"), restored(trained, "train")
    assert any("value" in name for name in params)  # the critics are saved, once
    target = {name for name in train if "target" in name}
    assert len(target) == sum("critic" in name for name in params)
    assert not any("['params']" in name for name in train)
    run = load_agent(trained, "last")
    observations = np.random.default_rng(0).normal(size=(4, 11)).astype(np.float32)
    values = jax.jit(run.agent.values)(run.seed_params(10), observations)
    assert values.shape == (4,)
    assert values.std() > 0
