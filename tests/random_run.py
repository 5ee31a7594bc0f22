"""A run's folder with random parameters, for tests that need no training."""

import re
from pathlib import Path

import jax
import numpy as np

from dt_jax.agents import make_agent
from dt_jax.cli import export as export_command
from dt_jax.cli import import_ as import_command
from dt_jax.config import default_config
from dt_jax.data.normalizer import Normalizer
from dt_jax.runs.checkpoint import CheckpointWriter
from dt_jax.runs.folder import write_description

S, A, T, EPISODE = 5, 3, 4, 12
STEPS = 9  # of an episode: more than T, so that the window moves


def make_config(**changes):
    """Return the configuration of a small network."""
    small = {
        "env_name": "hopper-demo",
        "embedding_dim": 12,
        "num_layers": 2,
        "num_heads": 2,
        "seq_len": T,
        "episode_len": EPISODE,
        "reward_scale": 0.5,
        "update_steps": 7,
    }
    return default_config(**small | changes).lock()


def make_normalizer(center=0.0, scale=1.0, states=S, actions=A, reward_scale=0.5):
    """Return random statistics of the states, and these units of the actions."""
    rng = np.random.default_rng(3)
    return Normalizer(
        state_mean=rng.normal(2, 1, states).astype(np.float32),
        state_std=rng.uniform(0.5, 2, states).astype(np.float32),
        action_center=np.full(actions, center, np.float32),
        action_scale=np.full(actions, scale, np.float32),
        reward_scale=reward_scale,
    )


def random_params(config, normalizer, seed=0):
    """Return parameters that all matter, and saturate no activation."""
    agent = make_agent(config, normalizer)
    shapes = jax.eval_shape(lambda: agent.acting_params(agent.init(jax.random.key(0))))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape).astype("f4"), shapes)


def write_random_run(folder, params=None, normalizer=None, **changes):
    """Write a run's folder with a checkpoint at step 7; return its parameters."""
    config, normalizer = make_config(**changes), normalizer or make_normalizer()
    if params is None:
        params = random_params(config, normalizer)
    record = {
        "config": config.to_dict(),
        "normalizer": normalizer.to_record(),
        "dataset": {"source": "hopper-demo.hdf5", "sha256": "0" * 64},
        "versions": {"dt_jax": "0.1.0"},
        "step": 7,
        "pending": None,
    }
    write_description(folder, record)
    with CheckpointWriter(folder / "checkpoints", 2) as writer:
        writer.save(7, params, {"step": np.int32(7)}, record, None)
    return params


def export_run(run, to, out, *flags):
    """Run `python -m dt_jax export` in this process."""
    export_command.main([str(run), f"--to={to}", f"--out={out}", *flags])


def import_run(source, kind, out, **flags):
    """Run `python -m dt_jax import` in this process."""
    more = [f"--{flag}={value}" for flag, value in flags.items()]
    import_command.main([str(source), f"--from={kind}", f"--out={out}", *more])


def episode(steps=STEPS, seed=1):
    """Return observations [steps, N, S] and rewards [steps, N] of two episodes."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(2, 1, (steps, 2, S)).astype(np.float32)
    return observations, rng.uniform(0, 1, (steps, 2)).astype(np.float32)


def episode_inputs(normalizer):
    """Return the inputs of a network in `episode`, and the actions to fill in.

    Returns:
      Normalised states [STEPS, N, S], actions [STEPS, N, A], scaled returns-to-go
      [STEPS, N] and timesteps [STEPS, N].
    """
    observations, rewards = episode()
    states = (observations - normalizer.state_mean) / normalizer.state_std
    targets = np.array([3.0, -2.0], np.float32) * np.float32(normalizer.reward_scale)
    earned = np.cumsum(rewards * np.float32(normalizer.reward_scale), axis=0)
    returns = np.concatenate([targets[None], targets - earned[:-1]])
    times = np.repeat(np.arange(STEPS)[:, None], 2, axis=1)
    return states, np.zeros((STEPS, 2, A), np.float32), returns, times


def play(policy):
    """Return the actions [STEPS, N, A] of a policy in `episode`."""
    observations, rewards = episode()
    policy.reset([3.0, -2.0])
    actions = [policy.act(observations[0])]
    for t in range(1, STEPS):
        actions.append(policy.act(observations[t], rewards[t - 1]))
    return np.stack(actions)


def docs_example(part):
    """Return the only block of Python in docs/ with the text `part`."""
    pages = (Path(__file__).parents[1] / "docs").glob("*.md")
    blocks = re.compile(r"^```py\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    found = [b for page in pages for b in blocks.findall(page.read_text()) if part in b]
    (block,) = found
    return block
