"""Several seeds trained in one program: each one is the run of that seed."""

import jax
import numpy as np
import pytest
from helpers import assert_same_run, changed, steps_of, train_until

from dt_jax.evaluation.policy import Policy, load_agent
from dt_jax.runs.aggregate import interquartile_mean
from dt_jax.runs.evaluations import last_evaluation
from dt_jax.runs.metrics import TIMING, read_metrics
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError

SEEDS = (10, 11)
COMPARED = ("return_mean", "normalized_score_mean", "action_mse", "relative")


def small(config, **changes):
    """Return a configuration with held-out trajectories."""
    return changed(config, holdout_fraction=0.3, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def together(folder, small_config):
    """Return the folder of a run of both seeds, trained on first use."""
    if not (folder / "together").exists():
        config = small(small_config, num_seeds=len(SEEDS))
        train(config, folder / "together")
    return folder / "together"


@pytest.fixture
def separate(folder, small_config):
    """Return the folder of each seed's own run, trained on first use."""
    for seed in SEEDS:
        if not (folder / f"{seed}").exists():
            train(small(small_config, train_seed=seed), folder / f"{seed}")
    return [folder / f"{seed}" for seed in SEEDS]


def test_parameters_are_those_of_separate_runs(together, separate):
    """To 1e-5: batched matrix products round differently."""
    params = load_agent(together, "last").params
    for i, workdir in enumerate(separate):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-5),
            params,
            load_agent(workdir, "last").params,
        )
    differ = jax.tree.map(lambda a: bool((a[0] != a[1]).any()), params)
    assert any(jax.tree.leaves(differ))


def test_metrics_are_those_of_separate_runs_and_their_aggregates(together, separate):
    rows = read_metrics(together / "metrics.jsonl")
    single = [read_metrics(workdir / "metrics.jsonl") for workdir in separate]
    assert [row["step"] for row in rows] == [row["step"] for row in single[0]]
    for row, *theirs in zip(rows, *single, strict=True):
        for name in theirs[0].keys() - {"step", *TIMING}:
            values = [each[name] for each in theirs]
            ours = [row[f"seed_{seed}/{name}"] for seed in SEEDS]
            np.testing.assert_allclose(ours, values, rtol=1e-3, atol=1e-5)
            assert row[name] == pytest.approx(np.mean(ours))
            assert row[f"{name}/std"] == pytest.approx(np.std(ours))
            assert (f"{name}/iqm" in row) == name.endswith(COMPARED)
            if name.endswith(COMPARED):
                logged = [row[f"{name}/iqm{end}"] for end in ("", "_low", "_high")]
                assert logged == pytest.approx(interquartile_mean(np.array(ours)))


def test_episodes_are_those_of_separate_runs(together, separate):
    _, evaluation = last_evaluation(together)
    assert evaluation.returns.shape == (2, 2, 2)
    for i, workdir in enumerate(separate):
        theirs = last_evaluation(workdir)[1]
        ours = evaluation.select_seed(i)
        np.testing.assert_allclose(ours.returns, theirs.returns, rtol=1e-3)
        np.testing.assert_array_equal(ours.seeds, theirs.seeds)
        assert ours.metrics().keys() == theirs.metrics().keys()


def test_policies_are_those_of_separate_runs(together, separate):
    observation = np.ones(11)
    actions = []
    for workdir, seed in [(together, 11), (separate[1], None), (together, None)]:
        policy = Policy.load(workdir, seed=seed)
        policy.reset(30.0)
        actions.append(policy.act(observation))
    np.testing.assert_allclose(actions[0], actions[1], atol=1e-4)
    assert np.abs(actions[0] - actions[2]).max() > 1e-4
    with pytest.raises(UserError, match="has no seed 12: it has 2, from 10 on"):
        Policy.load(together, seed=12)


def test_callbacks_get_the_metrics_of_each_seed(small_config, tmp_path):
    rows = []
    config = small(small_config, num_seeds=2, eval_episodes=0)
    train(config, tmp_path, [lambda step, row, stop: rows.append(row)])
    for row in rows[1:]:
        losses = [row[f"seed_{seed}/train_loss"] for seed in SEEDS]
        assert row["train_loss"] == pytest.approx(np.mean(losses))
        assert losses[0] != losses[1]


def test_the_number_of_seeds_cannot_change(together, small_config, tmp_path):
    config = small(small_config, init_from=str(together))
    with pytest.raises(UserError, match="is a run of 2 seeds"):
        train(config, tmp_path / "run")
    config = small(small_config, num_seeds=3)
    with pytest.raises(UserError, match="num_seeds 2 -> 3"):
        train(config, together)


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_bits(together, small_config, tmp_path):
    config = small(small_config, num_seeds=len(SEEDS))
    train_until(7, config, tmp_path / "run")
    train(config, tmp_path / "run")
    assert_same_run(tmp_path / "run", together)


@pytest.mark.slow
def test_a_warm_start_gives_every_seed_the_same_parameters(small_config, tmp_path):
    changes = {"update_steps": 1, "eval_episodes": 0}
    train(small(small_config, **changes), tmp_path / "one")
    config = small(
        small_config, num_seeds=2, init_from=str(tmp_path / "one"), **changes
    )
    train(config, tmp_path / "run")
    assert steps_of(tmp_path / "run") == [1]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, np.stack([b, b]), atol=0.1),
        load_agent(tmp_path / "run", "last").params,
        load_agent(tmp_path / "one", "last").params,
    )
