"""Hyper-parameters that several config files share."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from dt_jax.config.keys import keys_of
from dt_jax.config.load import check_dataset, default_config, read_config_file

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

# Ours, for the grid of 36 states, in which the best move does not depend on the time.
GRID: dict[str, Any] = {
    "embedding_dim": 64,
    "num_layers": 2,
    "num_heads": 4,
    "seq_len": 1,
    "timestep_embedding": False,
    "attention_dropout": 0.0,
    "residual_dropout": 0.0,
    "embedding_dropout": 0.0,
    "learning_rate": 2e-3,
    "weight_decay": 0.0,
    "clip_grad": None,
    "batch_size": 256,
    "update_steps": 3_000,
    "warmup_steps": 100,
    "eval_every": 500,
    "eval_episodes": 5,
    "episode_len": None,
    "reward_scale": 0.02,
    "target_returns": (50.0,),
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


def own_data(agent: str, **keys: Any) -> ConfigDict:
    """Return a configuration that leaves open all keys that depend on the data.

    Args:
      agent: its name.
      **keys: other values.
    """
    from_data = {name: None for name, key in keys_of(agent).items() if key.from_data}
    name = "own-data" if agent == "dt" else f"own-data-{agent}"
    return default_config(agent, name=name, env_name=None, **from_data | keys)


# CORL's values for BC, IQL and CQL in every family.
_SINGLE_STEP: dict[str, Any] = {
    "batch_size": 256,
    "update_steps": 1_000_000,
    "eval_every": 5_000,
    "eval_episodes": 10,
    "log_every": 1_000,
    "checkpoint_every": 5_000,
}
_OF_AGENT: dict[str, dict[str, Any]] = {
    "bc": {  # Adam at a constant rate
        "learning_rate": 3e-4,
        "lr_schedule": "warmup_constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "clip_grad": None,
    },
    "iql": {"reward_scale": 1.0},
    "cql": {  # of the critic of the QDT paper
        "reward_scale": 1.0,
        "actor_lr": 1e-4,
        "critic_layers": 3,
        "update_steps": 500_000,
    },
}
# Ours, for the demo datasets and your own data.
_DEMO: dict[str, dict[str, Any]] = {
    "bc": {"update_steps": 10_000},
    "iql": {"update_steps": 10_000, "reward_scale": None},
    "cql": {  # an update takes about ten times as long as one of "iql"
        "update_steps": 10_000,
        "batch_size": 64,
        "critic_dim": 128,
    },
}


def single_step(agent: str, family: str, dataset: str, **keys: Any) -> ConfigDict:
    """Return the hyper-parameters of "bc", "iql" or "cql", for a demo dataset ours.

    Args:
      agent: its name.
      family: of `configs/FAMILY.py`, whose dataset is used.
      dataset: what that file accepts.
      **keys: those of the family, for all of its datasets.

    Raises:
      UserError: the file does not know the dataset.
    """
    name = read_config_file(f"configs/{family}.py:{dataset}").env_name
    paper = _SINGLE_STEP | _OF_AGENT[agent]
    shared = single_step_laptop(agent) if dataset.endswith("demo") else paper
    return default_config(agent, env_name=name, **shared | keys)


def single_step_laptop(agent: str) -> dict[str, Any]:
    """Return our keys of "bc", "iql" or "cql", for a demo dataset or your own data."""
    return _SINGLE_STEP | _OF_AGENT[agent] | _DEMO[agent]


# The paper's for D4RL's locomotion data, from d3rlpy's reproductions/offline/qdt.py;
# its critic is cql.
_QDT: dict[str, Any] = {
    "critic_update_steps": 500_000,
    "critic_batch_size": 256,
    "batch_size": 64,
    "learning_rate": 1e-4,
}


def q_learning_dt(family: str, dataset: str, **keys: Any) -> ConfigDict:
    """Return the keys of a family's Decision Transformer, and those of its critic.

    Args:
      family: of `configs/FAMILY.py`.
      dataset: what that file accepts.
      **keys: other values.

    Raises:
      UserError: the file does not know the dataset.
    """
    is_demo = dataset.endswith("demo")
    ours = {"critic_update_steps": 10_000} if is_demo else _QDT
    return default_config("qdt", **_decision_transformer(family, dataset) | ours | keys)


# Ours, for the demo datasets: networks of whole episodes that a laptop trains.
_ESPER_DEMO: dict[str, Any] = {
    "return_dim": 64,
    "return_batch_size": 8,
    "return_lr": 1e-3,
    "dynamics_lr": 5e-3,
    "cluster_updates": 1_000,
    "return_updates": 1_000,
}


def esper(family: str, dataset: str) -> ConfigDict:
    """Return the keys of a family's Decision Transformer, and those of its labels.

    Args:
      family: of `configs/FAMILY.py`.
      dataset: what that file accepts.

    Raises:
      UserError: the file does not know the dataset.
    """
    ours = _ESPER_DEMO if dataset.endswith("demo") else {}
    return default_config("esper", **_decision_transformer(family, dataset) | ours)


# The paper's network and optimiser, from charleshsc/QT's experiment.py and run.sh.
_QT: dict[str, Any] = {
    "embedding_dim": 256,
    "num_layers": 4,
    "num_heads": 4,
    "activation": "relu",
    "batch_size": 256,
    "learning_rate": 3e-4,
    "lr_schedule": "cosine",
    "update_steps": 500_000,
    "eval_every": 5_000,
    "eval_episodes": 10,
    "critic_update_steps": 500_000,
}
# Ours, for demo datasets and your own data.
QT_LAPTOP: dict[str, Any] = {
    "learning_rate": 8e-4,
    "lr_schedule": "warmup_cosine",
    "clip_grad": 5.0,
    "ema_every": 1,
    "ema_start": 0,
    "critic_update_steps": 10_000,
}


def q_regularized_dt(family: str, dataset: str, **keys: Any) -> ConfigDict:
    """Return the paper's keys of "qt" for a family, for a demo dataset ours.

    Args:
      family: of `configs/FAMILY.py`, whose environment, targets and, for a demo,
        sizes are used.
      dataset: what that file accepts.
      **keys: those of the dataset.

    Raises:
      UserError: the file does not know the dataset.
    """
    ours = QT_LAPTOP if dataset.endswith("demo") else _QT
    return default_config("qt", **_decision_transformer(family, dataset) | ours | keys)


# The paper's, from the defaults and the example of beanie00/Decision-ConvFormer.
_CONVFORMER: dict[str, Any] = {
    "embedding_dim": 256,
    "seq_len": 8,
    "batch_size": 64,
    "learning_rate": 1e-4,
    "lr_schedule": "warmup_constant",
    "eval_every": 10_000,
}


def convformer(
    family: str, dataset: str, target_returns: Sequence[float]
) -> ConfigDict:
    """Return the paper's keys of a Decision ConvFormer for a family, for a demo ours.

    Args:
      family: of `configs/FAMILY.py`, whose environment and, for a demo, sizes and
        targets are used.
      dataset: what that file accepts.
      target_returns: the paper's.

    Raises:
      UserError: the file does not know the dataset.
    """
    ours = _CONVFORMER | {"target_returns": tuple(target_returns)}
    if dataset.endswith("demo"):
        ours = {}
    keys = _decision_transformer(family, dataset) | ours | {"mixer": "conv"}
    return default_config(**keys, name=f"convformer-{keys['env_name']}")


def _decision_transformer(family: str, dataset: str) -> dict[str, Any]:
    """Return the keys of the Decision Transformer in `configs/FAMILY.py`."""
    dt = read_config_file(f"configs/{family}.py:{dataset}")
    return {key: dt[key] for key in dt if key not in ("agent", "name")}
