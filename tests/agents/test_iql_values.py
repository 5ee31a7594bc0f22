"""Values of implicit Q-learning on a chain of five states, by dynamic programming."""

import jax
import numpy as np
import pytest
from small_agent import normalizer

from dt_jax.agents.iql import ImplicitQLearning
from dt_jax.config import default_config
from dt_jax.data.sampler import Sampler
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories

KEYS = {"critic_dim": 16, "critic_layers": 1, "update_steps": 1000}
KEYS |= {"vf_lr": 3e-3, "qf_lr": 2e-3, "actor_lr": 1e-3, "tau": 0.1}
DISCOUNT, GOAL, EXIT = 0.9, 1.0, 5.0
LEFT, RIGHT = -1.0, 1.0


def move(state, action):
    """Return the next state, None after a termination, and the reward.

    Right leads to the last state, where it stays and earns; left of the first state is
    an exit.
    """
    if action == RIGHT:
        return min(state + 1, 4), GOAL * (state == 4)
    return (None, EXIT) if state == 0 else (state - 1, 0.0)


def dynamic_programming(policy=None):
    """Return V [5] of a policy, the probability of going right in each state [5].

    None: the best one.
    """
    values = np.zeros(5)
    for _ in range(300):
        q = np.zeros((5, 2))
        for state in range(5):
            for i, action in enumerate((LEFT, RIGHT)):
                after, q[state, i] = move(state, action)
                if after is not None:
                    q[state, i] += DISCOUNT * values[after]
        values = q.max(axis=1)
        if policy is not None:
            values = (1 - policy) * q[:, 0] + policy * q[:, 1]
    return values


def chain(episodes=30, limit=12):
    """Return random episodes, which end at the exit or by a time limit."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(episodes):
        state = rng.integers(5)
        for step in range(limit):
            action = rng.choice([LEFT, RIGHT])
            after, reward = move(state, action)
            rows.append((state, action, reward, after is None, step == limit - 1))
            state = after
            if after is None:
                break
    states, actions, rewards, terminals, last = map(np.array, zip(*rows, strict=True))
    raw = RawData(
        observations=np.eye(5, dtype=np.float32)[states],
        actions=actions[:, None].astype(np.float32),
        rewards=rewards.astype(np.float32),
        terminals=terminals,
        timeouts=last & ~terminals,
    )
    return Trajectories.from_raw(raw, source="chain")


@pytest.mark.parametrize("iql_tau", [0.99, 0.5])
def test_values_of_a_chain_are_those_of_dynamic_programming(iql_tau):
    """Those of the best actions for a high expectile, of the data's policy for 0.5.

    V(4) is 10 if one stays there, where only time limits end episodes. There is no
    value after the exit.
    """
    data = chain()
    assert 0.2 < data.terminated.mean() < 0.8
    config = default_config("iql", **KEYS, discount=DISCOUNT, iql_tau=iql_tau)
    agent = ImplicitQLearning.from_config(config, normalizer(5, 1, 0.1))
    fields = agent.batch_fields
    sampler = Sampler(
        data, agent.normalizer, batch_size=1, context_len=1, seed=0, fields=fields
    )
    batch = sampler.gather(np.arange(sampler.num_transitions))  # all of the data

    @jax.jit
    def train(state, batch):
        return jax.lax.fori_loop(
            0,
            config.update_steps,
            lambda _, state: agent.update(state, batch)[0],
            state,
        )

    state = train(jax.jit(agent.init)(jax.random.key(0)), batch)
    found = agent.values(agent.acting_params(state), np.eye(5, dtype=np.float32))
    used = (batch.has_next + batch.terminals)[:, 0] > 0
    visits = batch.states[used, 0]
    policy = visits.T @ (batch.actions[used, 0, 0] == RIGHT) / visits.sum(axis=0)
    expected = dynamic_programming(policy if iql_tau == 0.5 else None)
    np.testing.assert_allclose(found, expected, rtol=0.05)
