"""Conservative Q-learning: its policy's density, its conservative term, its values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate
from small_agent import normalizer

from dt_jax.agents.contract import check_agent
from dt_jax.agents.cql import ConservativeQLearning
from dt_jax.config import default_config
from dt_jax.types import Batch

S, B = 3, 6


def make_agent(units=None, **changes):
    config = default_config("cql", **changes)
    return ConservativeQLearning.from_config(config, units or normalizer(S, 1, 0.5))


def initial(agent):
    """Return parameters with a Q that is not nearly constant."""
    params = jax.jit(agent.init)(jax.random.key(0)).params
    return params | {"critic": jax.tree.map(lambda x: 2 * x, params["critic"])}


def test_the_density_of_drawn_actions_integrates_to_1_and_is_theirs():
    agent = make_agent(critic_dim=8, critic_layers=1, max_action=1.5)
    params = initial(agent)["actor"]
    state = jnp.ones((1, S))
    repeated = jnp.broadcast_to(state, (50_000, S))
    actions, log_prob = agent._sample(params, repeated, jax.random.key(1))
    actions, log_prob = np.asarray(actions)[:, 0], np.asarray(log_prob)
    order = np.argsort(actions)
    actions, density = actions[order], np.exp(log_prob[order])
    assert np.abs(actions).max() <= 1.5
    inside = slice(50, -50)
    total = integrate.trapezoid(density[inside], actions[inside])
    assert abs(total - 1) < 0.01
    mean = integrate.trapezoid((density * actions)[inside], actions[inside])
    assert abs(mean - actions.mean()) < 0.02


def test_the_soft_maximum_is_the_integral_over_actions():
    """log Σ exp(Q) over 3n weighted samples is log ∫ exp Q da + log 3n."""
    agent = make_agent(
        critic_dim=8, critic_layers=1, max_action=1.5, cql_n_actions=4000
    )
    params = initial(agent)
    states = np.random.default_rng(0).normal(size=(B, 1, S)).astype(np.float32)
    batch = Batch(
        states=states, actions=np.zeros((B, 1, 1), np.float32), next_states=states[::-1]
    )
    found = agent._log_sum_exp(params, params["actor"], batch, jax.random.key(3))
    grid = np.linspace(-1.5, 1.5, 2001, dtype=np.float32)
    for i, state in enumerate(states[:, 0]):
        repeated = jnp.broadcast_to(state[None], (len(grid), S))
        q = agent.critic.apply({"params": params["critic"]}, repeated, grid[:, None])
        expected = np.log(integrate.trapezoid(np.exp(q), grid, axis=1))
        ours = np.asarray(found)[:, i, 0] - np.log(3 * 4000)
        # The policy seldom draws actions near the bounds, where its weights are large.
        np.testing.assert_allclose(ours, expected, atol=0.2)


@pytest.mark.slow
def test_the_conservative_term_lowers_q_outside_the_data():
    """Data of positive actions: without the term Q is extrapolated to negative ones."""
    states = np.eye(5, dtype=np.float32)
    batch = Batch(
        states=states[:, None],
        actions=np.full((5, 1, 1), 0.8, np.float32),
        rewards=np.ones((5, 1), np.float32),
        terminals=np.ones((5, 1), np.float32),
        next_states=states[:, None],
        has_next=np.zeros((5, 1), np.float32),
    )

    def gap(alpha):
        agent = make_agent(
            normalizer(5, 1, 1.0), cql_alpha=alpha, critic_dim=16, qf_lr=3e-3
        )
        state = jax.jit(agent.init)(jax.random.key(0))
        update = jax.jit(agent.update)
        for _ in range(100):
            state, metrics = update(state, batch)
        q = agent.critic.apply(
            {"params": state.params["critic"]}, batch.states, -batch.actions
        )
        return float(metrics["q_mean"] - q.mean())

    assert gap(5.0) > gap(0.0) + 0.5


def test_it_keeps_the_contract():
    check_agent("cql", make_agent())
