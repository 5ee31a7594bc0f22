import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from gymnasium.spaces import Box
from random_run import play, write_random_run
from small_agent import large_params, normalizer, small_agent

from dt_jax.data.registry import lookup
from dt_jax.envs import episode_seeds, make
from dt_jax.envs.spaces import action_units
from dt_jax.evaluation.policy import Policy
from dt_jax.rollout.episodes import run_episodes
from dt_jax.runs import manifest
from dt_jax.utils.errors import UserError

SPEC = lookup("hopper-demo")
S, A, LIMIT = SPEC.observation_size, SPEC.action_size, 6


@pytest.fixture(scope="module")
def policy():
    agent = small_agent(normalizer(S, A), seq_len=3, episode_len=LIMIT)
    return Policy(agent, large_params(agent, factor=9))


def observations(steps, n=2):
    return np.random.default_rng(0).standard_normal((steps, n, S), np.float32)


def test_one_episode_acts_as_a_row_of_many(policy):
    """Also for Python numbers and float64, which Gymnasium returns."""
    seen = observations(4)
    policy.reset([3.0, -1.0])
    many = [policy.act(o, None if t == 0 else [0.5, t]) for t, o in enumerate(seen)]
    policy.reset(-1.0)
    for t, o in enumerate(seen[:, 1].astype(np.float64)):
        action = policy.act(o, None if t == 0 else float(t), False)
        assert action.shape == (A,)
        np.testing.assert_allclose(action, many[t][1], atol=1e-5)


def test_done_restarts_that_episode(policy):
    seen = observations(2 * LIMIT)
    policy.reset([3.0, -1.0])
    fresh = policy.act(seen[3])
    policy.reset([3.0, -1.0])
    policy.act(seen[0])
    policy.act(seen[1], [1.0, 1.0])
    after_end = policy.act(seen[3], [9.0, 1.0], [True, False])
    np.testing.assert_allclose(after_end[0], fresh[0], atol=1e-6)
    assert np.abs(after_end[1] - fresh[1]).max() > 1e-3


def test_copies_share_the_program_but_no_episode(policy):
    seen = observations(LIMIT, n=1)[:, 0]
    policy.reset(3.0)
    alone = [policy.act(o, None if t == 0 else 0.5) for t, o in enumerate(seen)]
    compiled = policy._act._cache_size()
    first, second = copy.copy(policy), copy.copy(policy)
    first.reset(3.0)
    second.reset(-40.0)
    differ = []
    for t, o in enumerate(seen):
        reward = None if t == 0 else 0.5
        assert (first.act(o, reward) == alone[t]).all()
        differ.append((second.act(o, reward) != alone[t]).any())
    assert any(differ)
    assert first._act._cache_size() == compiled


def test_copies_in_mid_episode_continue_it_each_on_its_own(policy):
    seen = observations(LIMIT, n=1)[:, 0]
    policy.reset(3.0)
    expected = [policy.act(o, None if t == 0 else 0.5) for t, o in enumerate(seen)]
    policy.reset(3.0)
    policy.act(seen[0])
    for each in (copy.copy(policy), copy.deepcopy(policy)):
        each.act(-seen[1], 9.0)
    for branch in (copy.copy(policy), policy):
        for o, action in zip(seen[1:], expected[1:], strict=True):
            assert (branch.act(o, 0.5) == action).all()


def test_an_interrupted_call_changes_nothing(policy, monkeypatch):
    seen, program = observations(3, n=1)[:, 0], policy._act
    policy.reset(3.0)
    expected = [policy.act(o, None if t == 0 else 0.5) for t, o in enumerate(seen)]
    policy.reset(3.0)
    policy.act(seen[0])

    def interrupted(*inputs):
        program(*inputs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(policy, "_act", interrupted)
        with pytest.raises(KeyboardInterrupt):
            policy.act(seen[1], 0.5)
    for o, action in zip(seen[1:], expected[1:], strict=True):
        assert (policy.act(o, 0.5) == action).all()


def test_threads_may_call_one_policy(policy):
    """Each call is one timestep; together they make those that one thread makes."""
    o = observations(1)[0]
    policy.reset([3.0, -1.0])
    policy.act(o)
    with ThreadPoolExecutor(LIMIT) as pool:
        calls = [pool.submit(policy.act, o, [0.5, 0.5]) for _ in range(LIMIT - 1)]
    together = {call.result().tobytes() for call in calls}
    policy.reset([3.0, -1.0])
    policy.act(o)
    one = {policy.act(o, [0.5, 0.5]).tobytes() for _ in range(LIMIT - 1)}
    assert together == one


def test_a_loaded_policy_can_be_pickled(tmp_path, policy):
    write_random_run(tmp_path)
    loaded = Policy.load(tmp_path)
    restored = pickle.loads(pickle.dumps(loaded))
    again = pickle.loads(pickle.dumps(restored))
    expected = play(loaded)
    for each in (restored, again):
        with pytest.raises(ValueError, match="reset"):  # it has no episodes
            each.act(np.zeros((2, loaded.agent.observation_size)))
        np.testing.assert_array_equal(play(each), expected)
    with pytest.raises(TypeError, match=r"only a policy that Policy.load has returned"):
        pickle.dumps(policy)


def test_actions_depend_on_the_target_return(policy):
    o = observations(1)[0]
    policy.reset([3.0, -40.0])
    actions = policy.act(o[[0, 0]])
    assert np.abs(actions[0] - actions[1]).max() > 1e-3


@pytest.mark.parametrize("way", [-100.0, 100.0])
def test_a_saturated_action_is_within_the_environments_bounds(policy, way):
    low = np.random.default_rng(0).uniform(-3, 1, 100).astype(np.float32)
    space = Box(low, low + np.linspace(0.1, 2, 100, dtype=np.float32))
    center, scale = action_units(space.low, space.high, 1.0)
    units = normalizer(S, 100, action_center=center, action_scale=scale)
    agent = small_agent(units, seq_len=3, episode_len=LIMIT)
    params = jax.jit(agent.init_params)(jax.random.key(0))
    params["action_head"]["bias"] += way
    saturated = Policy(agent, params)
    saturated.reset(1.0)
    action = saturated.act(np.zeros(S))
    assert space.contains(action)
    np.testing.assert_allclose(action, space.low if way < 0 else space.high, atol=1e-6)


def act(policy, *arguments):
    policy.reset([1.0, 2.0])
    return policy.act(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, S + 1)),), rf"observations: expected shape \(2, {S}\)"),
        ((np.zeros(S),), rf"expected shape \(2, {S}\), got \({S},\)"),
        ((np.full((2, S), np.nan),), "NaN"),
        ((np.zeros((2, S)), [1.0]), r"rewards: expected shape \(2,\)"),
        ((np.zeros((2, S)), [1.0, 2.0], [True]), r"done: expected shape \(2,\)"),
    ],
)
def test_wrong_input_is_refused(policy, arguments, message):
    with pytest.raises(ValueError, match=message):
        act(policy, *arguments)


def test_a_wrong_shape_of_a_single_episode_is_reported_as_it_was_passed(policy):
    policy.reset(1.0)
    with pytest.raises(ValueError, match=rf"shape \({S},\), got \({S + 1},\)"):
        policy.act(np.zeros(S + 1))


def test_wrong_order_of_calls_is_refused(policy):
    params = jax.jit(policy.agent.init_params)(jax.random.key(0))
    with pytest.raises(ValueError, match="reset"):
        Policy(policy.agent, params).act(np.zeros((1, S)))
    policy.reset([1.0, 2.0])
    policy.act(np.zeros((2, S)))
    with pytest.raises(ValueError, match="rewards"):
        policy.act(np.zeros((2, S)))
    for wrong in ([], [[1.0]], np.nan, None):
        with pytest.raises(ValueError, match="target_returns"):
            policy.reset(wrong)


def test_an_episode_longer_than_episode_len_is_refused(policy):
    policy.reset([1.0, 2.0])
    policy.act(np.zeros((2, S)))
    for _ in range(LIMIT - 1):
        policy.act(np.zeros((2, S)), np.zeros(2))
    with pytest.raises(ValueError, match=f"longer than the {LIMIT} steps"):
        policy.act(np.zeros((2, S)), np.zeros(2))


def test_run_episodes_plays_a_trained_policy():
    agent = small_agent(normalizer(S, A), seq_len=3, episode_len=1000)
    collector = Policy(agent, jax.jit(agent.init_params)(jax.random.key(0)))
    collector.reset([100.0] * 3)
    episodes = run_episodes(make(SPEC, episode_seeds(0, 3)), collector)
    assert len(episodes) == 3
    for episode in episodes:
        assert episode.actions.shape == (len(episode.rewards), A)
        assert episode.rewards.sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 1001}, "num_layers=1001: expected an integer from 1 to 1000"),
        ({"num_layers": 3}, "does not hold the arrays of its configuration"),
        ({"embedding_dim": 2**30}, "does not hold the arrays of its configuration"),
        ({"num_seeds": 2}, "does not hold the arrays of its configuration"),
    ],
)
def test_a_checkpoint_with_another_configuration_is_refused(tmp_path, change, message):
    """Before anything is built, however large it would be."""
    write_random_run(tmp_path)
    score, record = manifest.read(tmp_path / "checkpoints", 7)
    record["config"] |= change
    manifest.write(tmp_path / "checkpoints", 7, manifest.Manifest(score, record))
    with pytest.raises(UserError, match=rf"checkpoints/7:? .*{message}"):
        Policy.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"state_mean": [0.0]},
        {"state_std": None},
        {"action_scale": ["a"] * 3},
        {"reward_scale": None},
        {"more": [1.0]},
    ],
)
def test_a_checkpoint_with_another_normaliser_is_refused(tmp_path, change):
    write_random_run(tmp_path)
    score, record = manifest.read(tmp_path / "checkpoints", 7)
    record["normalizer"] |= change
    manifest.write(tmp_path / "checkpoints", 7, manifest.Manifest(score, record))
    with pytest.raises(UserError, match="checkpoints/7: the normaliser is not valid"):
        Policy.load(tmp_path)
