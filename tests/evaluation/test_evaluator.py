from dataclasses import replace

import jax
import numpy as np
import pytest
from small_agent import large_params, normalizer, small_agent

from dt_jax.data.registry import NO_LIMIT, lookup
from dt_jax.envs import ENGINES, EnvGroup
from dt_jax.envs import lookup as lookup_env
from dt_jax.evaluation import evaluator as evaluator_module
from dt_jax.evaluation.evaluator import Evaluator
from dt_jax.utils.errors import UserError

SPEC = lookup("hopper-medium-v2")


@pytest.fixture(scope="module")
def agent():
    return small_agent(normalizer(11, 3, 0.001), seq_len=3, episode_len=1000)


@pytest.fixture(scope="module")
def params(agent):
    return large_params(agent, factor=9)


@pytest.fixture(scope="module")
def evaluator(agent):
    return Evaluator(agent, SPEC, [50000.0, 0.06], episodes=3, seed=42)


def test_evaluation_is_deterministic(evaluator, params):
    first, second = evaluator(params), evaluator(params)
    np.testing.assert_array_equal(first.returns, second.returns)
    assert first.returns.shape == first.lengths.shape == (2, 3)
    assert (first.returns[0] != first.returns[1]).any()  # the target matters
    assert len(set(first.returns[0].tolist())) == 3  # and so does the seed


def test_seeds_are_shared_across_targets_and_numbers_of_episodes(agent, params):
    few = Evaluator(agent, SPEC, [7.0, 7.0], episodes=2, seed=1)(params)
    more = Evaluator(agent, SPEC, [7.0], episodes=4, seed=1)(params)
    np.testing.assert_allclose(few.returns[0], few.returns[1], rtol=1e-4)
    np.testing.assert_allclose(few.returns[0], more.returns[0, :2], rtol=1e-4)
    np.testing.assert_array_equal(few.seeds, more.seeds[:2])


def test_two_halves_equal_one_whole(agent, params, monkeypatch):
    """Three episodes at three targets: five in each half, one of them twice."""
    targets = [50000.0, 5.0, 0.06]
    traced, step = [], EnvGroup.step
    monkeypatch.setattr(EnvGroup, "step", lambda *args: traced.append(0) or step(*args))
    halves = Evaluator(agent, SPEC, targets, episodes=3, seed=1)
    assert [part.num_envs for part in halves._env.parts] == [5, 5]
    monkeypatch.setattr(evaluator_module, "_MIN_EPISODES", 11)
    whole = Evaluator(agent, SPEC, targets, episodes=3, seed=1)
    assert [part.num_envs for part in whole._env.parts] == [9]
    ours = halves(params)
    assert len(traced) == 1  # one program for both halves
    theirs = whole(params)
    np.testing.assert_array_equal(ours.seeds, theirs.seeds)
    np.testing.assert_array_equal(ours.lengths, theirs.lengths)
    np.testing.assert_allclose(ours.returns, theirs.returns, rtol=1e-4)
    assert len(set(ours.returns.ravel().tolist())) == 9

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        halves(params, between_chunks=stop)
    np.testing.assert_array_equal(halves(params).returns, ours.returns)
    monkeypatch.setattr(halves._env.parts[1], "host_step", lambda actions: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        halves(params)


def test_environments_of_other_packages_are_stepped_by_one_thread():
    d4rl = ("antmaze-umaze-v2", "maze2d-umaze-v1", "pen-human-v1")
    for name in (SPEC.name, *d4rl, "Ant-v5"):
        assert ENGINES[lookup_env(name).engine].thread_safe
    assert not any(ENGINES[name].thread_safe for name in ("gymnasium", "gym", "minari"))


def test_metrics_have_corls_names(evaluator, params):
    evaluation = evaluator(params)
    metrics = evaluation.metrics()
    assert list(metrics) == [
        f"eval/{target}_{name}_{statistic}"
        for target in ("50000.0", "0.06")
        for name in ("return", "normalized_score", "length")
        for statistic in ("mean", "std")
    ]
    returns = evaluation.returns[1]
    assert metrics["eval/0.06_return_mean"] == pytest.approx(returns.mean())
    assert metrics["eval/0.06_return_std"] == pytest.approx(returns.std())
    scores = 100 * (returns + 20.272305) / (3234.3 + 20.272305)
    assert metrics["eval/0.06_normalized_score_mean"] == pytest.approx(scores.mean())
    assert evaluation.score == pytest.approx(evaluation.returns.mean())


def test_without_reference_returns_there_is_no_score(agent, params):
    spec = replace(SPEC, ref_min=None, ref_max=None)
    evaluation = Evaluator(agent, spec, [7.0], episodes=2, seed=1)(params)
    assert not any("score" in name for name in evaluation.metrics())
    assert len(evaluation.metrics()) == 4


def test_nan_parameters_are_an_error(evaluator, params):
    broken = jax.tree.map(lambda p: p * np.nan, params)
    with pytest.raises(UserError, match="NaN action in episode 0"):
        evaluator(broken)


def test_a_cut_off_of_episodes_is_a_warning(agent):
    short = replace(agent, model=agent.model.clone(episode_len=7))
    with pytest.warns(UserWarning, match="cut off after episode_len=7 steps, "):
        evaluator = Evaluator(short, SPEC, [7.0], episodes=1, seed=1)
    params = jax.jit(short.init_params)(jax.random.key(0))
    assert evaluator(params).lengths.max() == 7
    endless = replace(SPEC, max_episode_steps=NO_LIMIT)
    Evaluator(short, endless, [7.0], episodes=1, seed=1)
