"""Runs that differ in their seed, in one program: each is as it is alone."""

import jax
import numpy as np
import pytest
from test_train import changed

from dt_jax.evaluation.policy import Policy, restore
from dt_jax.runs.aggregate import interquartile_mean
from dt_jax.runs.checkpoint import find_checkpoints
from dt_jax.runs.evaluations import last_evaluation
from dt_jax.runs.metrics import read_metrics
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError

SEEDS = (10, 11)
TIMED = ("steps_per_second", "eval/seconds")
COMPARED = ("return_mean", "normalized_score_mean", "action_mse")


def small(config, **changes):
    """With one dropout, for each takes seconds to compile."""
    changes |= {"attention_dropout": 0.0, "residual_dropout": 0.0}
    return changed(config, holdout_fraction=0.3, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def together(folder, small_config):
    if not (folder / "together").exists():
        config = small(small_config, num_seeds=len(SEEDS))
        train(config, folder / "together")
    return folder / "together"


def test_each_seed_is_its_run_alone(together, small_config, tmp_path):
    alone = [tmp_path / f"{seed}" for seed in SEEDS]
    for seed, workdir in zip(SEEDS, alone, strict=True):
        train(small(small_config, train_seed=seed), workdir)
    same_parameters(together, alone)
    same_metrics(together, alone)
    same_episodes(together, alone)
    same_policies(together, alone)
    refusals(together, small_config, tmp_path)


def same_parameters(together, alone):
    """Parameters to 1e-5; products of several matrices at once round otherwise."""
    params = restore(together, "last")[1]
    for i, workdir in enumerate(alone):
        theirs = restore(workdir, "last")[1]
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-5),
            params,
            theirs,
        )
    differ = jax.tree.map(lambda a: bool((a[0] != a[1]).any()), params)
    assert any(jax.tree.leaves(differ))


def same_metrics(together, alone):
    """Each seed's, and what they come to."""
    rows = read_metrics(together / "metrics.jsonl")
    single = [read_metrics(workdir / "metrics.jsonl") for workdir in alone]
    assert [row["step"] for row in rows] == [row["step"] for row in single[0]]
    for row, *theirs in zip(rows, *single, strict=True):
        for name in theirs[0].keys() - {"step", *TIMED}:
            values = [their[name] for their in theirs]
            ours = [row[f"seed_{seed}/{name}"] for seed in SEEDS]
            np.testing.assert_allclose(ours, values, rtol=1e-3, atol=1e-5)
            assert row[name] == pytest.approx(np.mean(ours))
            assert row[f"{name}/std"] == pytest.approx(np.std(ours))
            assert (f"{name}/iqm" in row) == name.endswith(COMPARED)
            if name.endswith(COMPARED):
                logged = [row[f"{name}/iqm{end}"] for end in ("", "_low", "_high")]
                assert logged == pytest.approx(interquartile_mean(np.array(ours)))


def same_episodes(together, alone):
    _, evaluation = last_evaluation(together)
    assert evaluation.returns.shape == (2, 2, 2)
    for i, workdir in enumerate(alone):
        theirs = last_evaluation(workdir)[1]
        ours = evaluation.of_seed(i)
        np.testing.assert_allclose(ours.returns, theirs.returns, rtol=1e-3)
        np.testing.assert_array_equal(ours.seeds, theirs.seeds)
        assert ours.metrics().keys() == theirs.metrics().keys()


def same_policies(together, alone):
    observation = np.ones(11)
    actions = []
    for workdir, seed in [(together, 11), (alone[1], None), (together, None)]:
        policy = Policy.load(workdir, seed=seed)
        policy.reset(30.0)
        actions.append(policy.act(observation))
    np.testing.assert_allclose(actions[0], actions[1], atol=1e-4)
    assert np.abs(actions[0] - actions[2]).max() > 1e-4
    with pytest.raises(UserError, match="has no seed 12, but 2 from 10 on"):
        Policy.load(together, seed=12)


@pytest.mark.slow
def test_an_interrupted_run_of_several_seeds(
    together, small_config, tmp_path, monkeypatch
):
    """To the same bits: parameters, optimiser, keys and metrics."""
    from test_train import arrays, trainer, untimed

    indices = trainer.Sampler.indices

    def breaking(self, step):
        if step == 7:
            raise KeyboardInterrupt
        return indices(self, step)

    config = small(small_config, num_seeds=len(SEEDS))
    monkeypatch.setattr(trainer.Sampler, "indices", breaking)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run")
    monkeypatch.undo()
    train(config, tmp_path / "run")
    assert arrays(tmp_path / "run") == arrays(together)
    assert untimed(tmp_path / "run") == untimed(together)


def refusals(together, small_config, tmp_path):
    config = small(small_config, init_from=str(together))
    with pytest.raises(UserError, match="is a run of 2 seeds"):
        train(config, tmp_path / "run")
    config = small(small_config, num_seeds=3)
    with pytest.raises(UserError, match="num_seeds 2 -> 3"):
        train(config, together)


@pytest.mark.slow
def test_several_seeds_begin_with_one_run(small_config, tmp_path):
    one = tmp_path / "one"
    train(small(small_config, update_steps=1, eval_episodes=0), one)
    config = small(
        small_config,
        num_seeds=2,
        init_from=str(one),
        update_steps=1,
        eval_episodes=0,
    )
    train(config, tmp_path / "run")
    assert len(find_checkpoints(tmp_path / "run" / "checkpoints")) == 1
    params = restore(tmp_path / "run", "last")[1]
    source = restore(one, "last")[1]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, np.stack([b, b]), atol=0.1),
        params,
        source,
    )
