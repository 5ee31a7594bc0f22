"""Hyper-parameters that several config files share."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from dt_jax.config.load import check_dataset, default_config

# CORL's values for every family but antmaze.
LARGE_BATCH: dict[str, Any] = {
    "batch_size": 4096,
    "learning_rate": 8e-4,
    "eval_every": 5_000,
}

# Ours, for the demo datasets and your own data: a run that a laptop finishes.
LAPTOP: dict[str, Any] = {
    "batch_size": 64,
    "learning_rate": 8e-4,
    "update_steps": 20_000,
    "warmup_steps": 1_000,
    "eval_every": 5_000,
    "eval_episodes": 10,
}

# Ours, for environments of a few states, in which the state decides everything.
TABULAR: dict[str, Any] = {
    "embedding_dim": 32,
    "num_layers": 1,
    "seq_len": 1,
    "learning_rate": 1e-3,
    "update_steps": 2_000,
    "warmup_steps": 100,
    "eval_every": 1_000,
    "eval_episodes": 20,
    "episode_len": None,
}


def locomotion(
    body: str,
    dataset: str,
    target_returns: Sequence[float],
    demo_target_returns: Sequence[float],
) -> ConfigDict:
    """Return CORL's hyper-parameters for a body's D4RL dataset, ours for its demo."""
    check_dataset(dataset, ("medium", "medium-replay", "medium-expert", "demo"))
    if dataset == "demo":
        return default_config(
            env_name=f"{body}-demo",
            target_returns=tuple(demo_target_returns),
            **LAPTOP,
        )
    return default_config(
        env_name=f"{body}-{dataset}-v2",
        target_returns=tuple(target_returns),
        **LARGE_BATCH,
    )
