"""A run's folder with random parameters: what a test needs of one, in no time."""

import re
from pathlib import Path

import jax
import numpy as np

from dt_jax.agents.dt import SCALING, DecisionTransformerAgent
from dt_jax.config import default_config
from dt_jax.config.load import to_json
from dt_jax.runs.checkpoint import CheckpointWriter

S, A, T, EPISODE = 5, 3, 4, 12


def config_of(**changes):
    """Return the configuration of a small network."""
    config = default_config()
    config.update(
        env_name="hopper-demo",
        embedding_dim=12,
        num_layers=2,
        num_heads=2,
        seq_len=T,
        episode_len=EPISODE,
        reward_scale=0.5,
        update_steps=7,
    )
    for key, value in changes.items():  # update would take None for "as it is"
        config[key] = value
    return config.lock()


def scaling_of(center=0.0, scale=1.0, states=S):
    """Return what brings data into the network's units."""
    rng = np.random.default_rng(3)
    units = np.full(A, center), np.full(A, scale)
    arrays = rng.normal(2, 1, states), rng.uniform(0.5, 2, states), *units
    return dict(zip(SCALING, (x.astype(np.float32) for x in arrays), strict=True))


def params_of(config, scaling, seed=0):
    """Return parameters that all matter, of a size that saturates nothing."""
    agent = DecisionTransformerAgent.from_config(config, **scaling)
    shapes = jax.eval_shape(agent.init_params, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape).astype("f4"), shapes)


def write_a_run(folder, params=None, center=0.0, scale=1.0, states=S, **changes):
    """Make a run's folder with a checkpoint at step 7; return its parameters."""
    config, scaling = config_of(**changes), scaling_of(center, scale, states)
    if params is None:
        params = params_of(config, scaling)
    record = {
        "config": config.to_dict(),
        **{key: array.tolist() for key, array in scaling.items()},
        "dataset": {"source": "hopper-demo.hdf5", "sha256": "0" * 64},
        "versions": {"dt_jax": "0.1.0"},
        "step": 7,
        "owed": None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(to_json(config))
    with CheckpointWriter(folder / "checkpoints", 2) as writer:
        writer.save(7, params, {"step": np.int32(7)}, record, None)
    return params


def episode(steps, seed=1):
    """Return observations [steps, N, S] and rewards [steps, N] of two episodes."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(2, 1, (steps, 2, S)).astype(np.float32)
    return observations, rng.uniform(0, 1, (steps, 2)).astype(np.float32)


def played(policy, steps):
    """Return the actions [steps, N, A] of a policy in `episode`."""
    observations, rewards = episode(steps)
    policy.reset([3.0, -2.0])
    actions = [policy.act(observations[0])]
    for t in range(1, steps):
        actions.append(policy.act(observations[t], rewards[t - 1]))
    return np.stack(actions)


def page_code(part):
    """Return the block of Python on docs/deployment.md that has `part` in it."""
    page = (Path(__file__).parents[1] / "docs/deployment.md").read_text()
    blocks = re.findall(r"^```py\w*\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if part in block)
    return block
