"""A chain of five states whose values are known, and what a critic learns of them."""

import jax
import numpy as np

from dt_jax.data.sampler import Sampler
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories

DISCOUNT, GOAL, EXIT = 0.9, 1.0, 5.0
UPDATES = 1000
SIZES = {
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
