"""Small Decision Transformers for tests."""

import jax
import numpy as np

from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.agents.optim import make_optimizer, make_schedule
from dt_jax.data.normalizer import Normalizer
from dt_jax.networks.decision_transformer import DecisionTransformer


def small_network(**changes):
    """Return a network of one layer and width 8, without dropout."""
    sizes = {
        "action_size": 2,
        "seq_len": 4,
        "episode_len": 12,
        "embedding_dim": 8,
        "num_layers": 1,
        "num_heads": 1,
        "attention_dropout": 0.0,
        "residual_dropout": 0.0,
        "embedding_dropout": 0.0,
        "max_action": 1.0,
    }
    return DecisionTransformer(**sizes | changes)


def normalizer(states, actions, reward_scale=0.1, **changes):
    """Return units in which nothing is scaled but rewards."""
    units = {
        "state_mean": np.zeros(states, np.float32),
        "state_std": np.ones(states, np.float32),
        "action_center": np.zeros(actions, np.float32),
        "action_scale": np.ones(actions, np.float32),
    }
    return Normalizer(**units | changes, reward_scale=reward_scale)


def small_agent(units, **network):
    """Return an agent with `small_network`, trained in ten updates."""
    schedule = make_schedule("warmup_cosine", 1e-2, 3, 10)
    return DecisionTransformerAgent(
        model=small_network(action_size=units.action_size, **network),
        normalizer=units,
        optimizer=make_optimizer(schedule, (0.9, 0.999), 1e-4, 0.25),
        schedule=schedule,
    )


def large_params(agent, seed=0, factor=20):
    """Return parameters so large that every input matters."""
    params = jax.jit(agent.init_params)(jax.random.key(seed))
    return jax.tree.map(lambda p: factor * p if p.ndim > 1 else p, params)
