"""Values that iql and cql learn on a chain of five states, by dynamic programming."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from small_agent import normalizer

from dt_jax.agents import agent_class
from dt_jax.agents import make_agent as agent_of
from dt_jax.agents.base import Trained
from dt_jax.config import default_config
from dt_jax.data.sampler import Sampler
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories

DISCOUNT, GOAL, EXIT = 0.9, 1.0, 5.0
UPDATES = 1000
KEYS = {
    "critic_dim": 16,
    "critic_layers": 1,
    "update_steps": UPDATES,
    "discount": DISCOUNT,
}


def move(state, right):
    """Return the next state, None after a termination, and the reward.

    Right leads to the last state, where it stays and earns; left of the first state is
    an exit.
    """
    if right:
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
            for right in (False, True):
                after, q[state, int(right)] = move(state, right)
                if after is not None:
                    q[state, int(right)] += DISCOUNT * values[after]
        values = q.max(axis=1)
        if policy is not None:
            values = (1 - policy) * q[:, 0] + policy * q[:, 1]
    return values


def episodes(count=30, limit=12, least=1.0):
    """Return random episodes, which end at the exit or by a time limit.

    The sign of an action counts; its size is uniform between `least` and 1.
    """
    rng, sizes, rows = *map(np.random.default_rng, (0, 1)), []
    for _ in range(count):
        state = rng.integers(5)
        for step in range(limit):
            action = rng.choice([-1, 1]) * sizes.uniform(least, 1)
            after, reward = move(state, action > 0)
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


def learnt_values(agent, data, updates=UPDATES):
    """Return a critic's values [5] after updates on all of the data, and its batch."""
    sampler = Sampler(
        data,
        agent.normalizer,
        batch_size=1,
        context_len=1,
        seed=0,
        fields=agent.batch_fields,
    )
    batch = sampler.gather(np.arange(sampler.num_transitions))

    @jax.jit
    def train(state, batch):
        return jax.lax.fori_loop(
            0, updates, lambda _, state: agent.update(state, batch)[0], state
        )

    state = train(jax.jit(agent.init)(jax.random.key(0)), batch)
    found = agent.values(agent.acting_params(state), np.eye(5, dtype=np.float32))
    return np.asarray(found), batch


def make_agent(name, reward_scale, **changes):
    config = default_config(name, **KEYS | changes)
    return agent_of(config, normalizer(5, 1, reward_scale))


@pytest.mark.parametrize("iql_tau", [0.99, 0.5])
def test_values_of_iql_are_those_of_the_best_or_the_recorded_actions(iql_tau):
    """Those of the best actions for a high expectile, of the data's policy for 0.5.

    V(4) is 10 if one stays there, where only time limits end episodes. There is no
    value after the exit.
    """
    data = episodes()
    assert 0.2 < data.terminated.mean() < 0.8
    agent = make_agent(
        "iql", 0.1, iql_tau=iql_tau, vf_lr=3e-3, qf_lr=2e-3, actor_lr=1e-3, tau=0.1
    )
    found, batch = learnt_values(agent, data)
    used = (batch.has_next + batch.terminals)[:, 0] > 0
    visits = batch.states[used, 0]
    policy = visits.T @ (batch.actions[used, 0, 0] > 0) / visits.sum(axis=0)
    expected = dynamic_programming(policy if iql_tau == 0.5 else None)
    np.testing.assert_allclose(found, expected, rtol=0.05)


@pytest.mark.slow
def test_values_of_cql_are_those_of_the_best_actions():
    data = episodes(count=60, least=0.1)
    agent = make_agent(
        "cql",
        1.0,
        cql_alpha=0.01,
        cql_n_actions=2,
        qf_lr=3e-3,
        actor_lr=3e-3,
        temperature_lr=3e-2,
        tau=0.05,
    )
    found, _ = learnt_values(agent, data, updates=2000)
    np.testing.assert_allclose(found, dynamic_programming(), rtol=0.05)


def test_labels_of_qdt_are_those_of_integer_observations_too():
    """As a memory-mapped file may hold them."""
    data, agent = episodes(count=5), make_agent("iql", 0.5)
    std = np.full(data.observations.shape[1], 0.5, np.float32)
    agent = replace(agent, normalizer=replace(agent.normalizer, state_std=std))
    params = agent.acting_params(jax.jit(agent.init)(jax.random.key(0)))
    critic, config = {"critic": Trained(agent, params)}, default_config("qdt")
    integers = replace(data, observations=data.observations.astype(np.uint8))
    make = agent_class("qdt").make_labels
    ours, theirs = (make(config, critic, each).values for each in (integers, data))
    np.testing.assert_array_equal(ours, theirs)


def test_labels_of_qdt_are_rounded_in_units_of_reward():
    data, agent = episodes(count=5), make_agent("iql", 0.5)
    data = replace(data, rewards=data.rewards * np.float32(0.3))
    params = agent.acting_params(jax.jit(agent.init)(jax.random.key(0)))
    critic = {"critic": Trained(agent, params)}

    def labels(step):
        config = default_config("qdt", label_rounding=step)
        return agent_class("qdt").make_labels(config, critic, data).values

    exact, rounded = labels(0.0), labels(0.5)
    assert (exact % 0.5 != 0).any()
    assert (rounded % 0.5 == 0).all()
    np.testing.assert_allclose(rounded, exact, atol=0.2500001)
