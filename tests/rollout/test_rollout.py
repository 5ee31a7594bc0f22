import jax
import numpy as np
import pytest
from small_agent import large_params, normalizer, small_agent
from toy import LinearEnv

from dt_jax.agents.multi_seed import MultiSeedAgent
from dt_jax.envs.base import HostEnv
from dt_jax.evaluation.policy import Policy
from dt_jax.rollout.episodes import run_episodes, split_episodes
from dt_jax.rollout.rollout import CHUNK, Rollout

S, A, LIMIT = 3, 2, 60
RNG = np.random.default_rng(0)
M = (0.9 * np.linalg.qr(RNG.normal(size=(S, S)))[0]).astype(np.float32)
B, W, S0 = (RNG.normal(size=n).astype(np.float32) for n in ((S, A), S, S))
TARGETS = np.array([5, 5, -2, 1], np.float32)
KEYS = jax.random.split(jax.random.key(0), 4)


def make_env(horizons, seeds=(3, 4, 5, 6)):
    return LinearEnv(M, B, W, S0, horizons, seeds)


@pytest.fixture(scope="module")
def agent():
    return small_agent(normalizer(S, A), episode_len=LIMIT)


@pytest.fixture(scope="module")
def params(agent):
    return large_params(agent)


def rollout_of(agent, env, params, record=False):
    """Return the results of all episodes of `env`."""
    rollout = Rollout(agent, env, LIMIT, record)
    return rollout(params, *env.reset(), TARGETS, KEYS)


def play_one_by_one(agent, params, env):
    """Play one Python step at a time."""
    policy = Policy(agent, params)
    policy.reset(TARGETS)
    returns, lengths = np.zeros(4), np.zeros(4, int)
    running, rewards = np.ones(4, bool), None
    state, observations = env.reset()
    while running.any() and lengths.max() < agent.episode_len:
        actions = policy.act(observations, rewards)
        state, (observations, rewards, done) = env.step(state, actions)
        returns += np.where(running, rewards, 0)
        lengths += running
        running &= ~np.asarray(done)
    return returns, lengths


@pytest.mark.parametrize(
    "horizons",
    [(1, 30, 7, 26), (LIMIT, 5, LIMIT + 9, 25)],
    ids=["all end early", "one never ends"],
)
def test_rollout_equals_a_python_loop(agent, params, horizons):
    env = make_env(horizons)
    episodes = rollout_of(agent, env, params)
    returns, lengths = play_one_by_one(agent, params, env)
    np.testing.assert_allclose(episodes.returns, returns, rtol=1e-4, atol=1e-4)
    assert episodes.lengths.tolist() == lengths.tolist()
    assert lengths.tolist() == [min(horizon, LIMIT) for horizon in horizons]


@pytest.mark.parametrize(
    "network",
    [{"mixer": "conv"}, pytest.param({"attention_band": 4}, marks=pytest.mark.slow)],
    ids=str,
)
def test_ring_cache_in_rollouts_of_one_and_of_two_seeds(network):
    """Both play as `Policy` does in a Python loop."""
    agent = small_agent(normalizer(S, A), episode_len=LIMIT, **network)
    assert agent.model.has_ring
    params, horizons = [large_params(agent, seed) for seed in (0, 1)], (60, 30, 7, 26)
    both = jax.tree.map(lambda *arrays: np.stack(arrays), *params)
    env = make_env(horizons)
    many = rollout_of(MultiSeedAgent(agent, 2), env, both)
    for i, own in enumerate(params):
        returns, lengths = play_one_by_one(agent, own, env)
        episodes = rollout_of(agent, env, own)
        np.testing.assert_allclose(episodes.returns, returns, rtol=1e-4, atol=1e-4)
        seeds = slice(2 * i, 2 * i + 2)
        np.testing.assert_allclose(
            many.returns[seeds], returns[seeds], rtol=1e-4, atol=1e-4
        )
        assert many.lengths[seeds].tolist() == lengths[seeds].tolist()


class HostLinearEnv(HostEnv):
    """The linear environment behind callbacks, counting its steps."""

    def __init__(self, horizons):
        wide = (-np.inf, np.inf)
        super().__init__(
            "HostLinearEnv", (4, S, A), max_episode_steps=1000, action_bounds=wide
        )
        self._env = make_env(horizons)
        self._horizons = np.asarray(horizons)

    def _start(self):
        self.steps = 0
        self._observations = np.asarray(self._env.reset()[1])
        return self._observations

    def _advance(self, actions):
        self.steps += 1
        self._observations = self._observations @ M.T + actions @ B.T
        done = self._horizons <= self.steps
        return self._observations, self._observations @ W, done


def test_a_host_environment_is_stepped_only_while_episodes_run(
    agent, params, monkeypatch
):
    horizons = (1, 30, 7, 26)
    env, toy = HostLinearEnv(horizons), make_env(horizons)
    traced, step = [], env.step
    monkeypatch.setattr(env, "step", lambda *args: traced.append(0) or step(*args))
    rollout = Rollout(agent, env, LIMIT)
    episodes = rollout(params, *env.reset(), TARGETS, KEYS)
    expected = rollout_of(agent, toy, params)
    np.testing.assert_allclose(episodes.returns, expected.returns, atol=1e-4)
    assert env.steps == 30
    rollout(params, *env.reset(), TARGETS, KEYS)
    assert len(traced) == 1  # compiled once


def test_an_exception_between_chunks_ends_the_rollout(agent, params):
    env, chunks = HostLinearEnv((LIMIT, 30, 7, 1)), []

    def stop_at_the_second():
        chunks.append(env.steps)
        if len(chunks) == 2:
            raise KeyboardInterrupt

    rollout = Rollout(agent, env, LIMIT)
    with pytest.raises(KeyboardInterrupt):
        rollout(params, *env.reset(), TARGETS, KEYS, stop_at_the_second)
    assert chunks == [CHUNK, 2 * CHUNK]
    again = rollout(params, *env.reset(), TARGETS, KEYS)
    assert again.lengths.tolist() == [LIMIT, 30, 7, 1]


def test_check_raises_the_environments_error(agent, params):
    env = HostLinearEnv((30, 30, 30, 30))
    env.host_step = lambda actions: 1 / 0
    rollout_of(agent, env, params)
    with pytest.raises(ZeroDivisionError):
        env.check()


def test_a_recorded_rollout_has_the_episodes_of_a_python_loop(agent, params):
    """Every step of every episode, cut at its end; results are those without it."""
    horizons = (1, 30, 7, 26)
    env = HostLinearEnv(horizons)
    played = jax.device_get(rollout_of(agent, env, params, record=True))
    plain = rollout_of(agent, env, params)
    np.testing.assert_array_equal(played.returns, plain.returns)
    episodes = split_episodes(played.recording, played.lengths, env.max_episode_steps)
    policy = Policy(agent, params)
    policy.reset(TARGETS)
    for ours, expected in zip(episodes, run_episodes(env, policy), strict=True):
        for name in ("observations", "actions", "rewards", "terminals", "timeouts"):
            np.testing.assert_allclose(
                getattr(ours, name), getattr(expected, name), atol=1e-4, err_msg=name
            )
    assert [len(episode.rewards) for episode in episodes] == list(horizons)
    sums = [episode.rewards.sum() for episode in episodes]
    np.testing.assert_allclose(sums, played.returns, rtol=1e-5)
