import jax
import numpy as np
import pytest
from toy import LinearEnv

from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.envs.base import HostEnv
from dt_jax.evaluation.policy import Policy
from dt_jax.networks.decision_transformer import DecisionTransformer
from dt_jax.rollout.rollout import CHUNK, Rollout

S, A, LIMIT = 3, 2, 60
RNG = np.random.default_rng(0)
M = (0.9 * np.linalg.qr(RNG.normal(size=(S, S)))[0]).astype(np.float32)
B, W, S0 = (RNG.normal(size=n).astype(np.float32) for n in ((S, A), S, S))
TARGETS = np.array([5, 5, -2, 1], np.float32)


def make_env(horizons, seeds=(3, 4, 5, 6)):
    return LinearEnv(M, B, W, S0, horizons, seeds)


@pytest.fixture(scope="module")
def agent():
    model = DecisionTransformer(
        action_size=A,
        seq_len=4,
        episode_len=LIMIT,
        embedding_dim=8,
        num_layers=1,
        num_heads=1,
        attention_dropout=0.0,
        residual_dropout=0.0,
        embedding_dropout=0.0,
        max_action=1.0,
    )
    return DecisionTransformerAgent(
        model, np.zeros(S, np.float32), np.ones(S, np.float32), 0.1
    )


@pytest.fixture(scope="module")
def params(agent):
    params = jax.jit(agent.init_params)(jax.random.key(0))
    return jax.tree.map(lambda p: 20 * p if p.ndim > 1 else p, params)


def play_one_by_one(agent, params, env):
    """The naive loop: one policy for all, one Python step at a time."""
    policy = Policy(agent, params)
    policy.reset(TARGETS)
    returns, lengths = np.zeros(4), np.zeros(4, int)
    running, rewards = np.ones(4, bool), None
    state, observations = env.reset()
    while running.any() and lengths.max() < agent.model.episode_len:
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
def test_the_compiled_rollout_plays_what_a_loop_plays(agent, params, horizons):
    env = make_env(horizons)
    episodes = Rollout(agent, env, LIMIT)(params, *env.reset(), TARGETS)
    returns, lengths = play_one_by_one(agent, params, env)
    np.testing.assert_allclose(episodes.returns, returns, rtol=1e-4, atol=1e-4)
    assert episodes.lengths.tolist() == lengths.tolist()
    assert lengths.tolist() == [min(horizon, LIMIT) for horizon in horizons]


class OnTheHost(HostEnv):
    """The linear environment behind callbacks, counting its steps."""

    def __init__(self, horizons):
        wide = (-np.inf, np.inf)
        super().__init__(
            "OnTheHost", (4, S, A), max_episode_steps=1000, action_bounds=wide
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


def test_a_host_environment_is_stepped_just_as_often_as_needed(
    agent, params, monkeypatch
):
    horizons = (1, 30, 7, 26)
    env, toy = OnTheHost(horizons), make_env(horizons)
    traced, step = [], env.step
    monkeypatch.setattr(env, "step", lambda *args: traced.append(0) or step(*args))
    rollout = Rollout(agent, env, LIMIT)
    episodes = rollout(params, *env.reset(), TARGETS)
    expected = Rollout(agent, toy, LIMIT)(params, *toy.reset(), TARGETS)
    np.testing.assert_allclose(episodes.returns, expected.returns, atol=1e-4)
    assert env.steps == 30
    rollout(params, *env.reset(), TARGETS)
    assert len(traced) == 1  # compiled once


def test_between_chunks_a_rollout_can_be_ended(agent, params):
    env, chunks = OnTheHost((LIMIT, 30, 7, 1)), []

    def stop_at_the_second():
        chunks.append(env.steps)
        if len(chunks) == 2:
            raise KeyboardInterrupt

    rollout = Rollout(agent, env, LIMIT)
    with pytest.raises(KeyboardInterrupt):
        rollout(params, *env.reset(), TARGETS, stop_at_the_second)
    assert chunks == [CHUNK, 2 * CHUNK]
    again = rollout(params, *env.reset(), TARGETS)
    assert again.lengths.tolist() == [LIMIT, 30, 7, 1]


def test_an_error_of_the_environment_comes_out_of_the_rollout(agent, params):
    env = OnTheHost((30, 30, 30, 30))
    env.host_step = lambda actions: 1 / 0
    Rollout(agent, env, LIMIT)(params, *env.reset(), TARGETS)
    with pytest.raises(ZeroDivisionError):
        env.check()
