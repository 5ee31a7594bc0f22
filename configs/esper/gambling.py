"""Gambling with ESPER, which does not take luck for skill.

  python launch.py --config=configs/esper/gambling.py
  python launch.py --config=configs/esper/gambling.py:paper

A Decision Transformer (configs/gambling.py) asked for 5 returns -5 on average; this,
asked for its largest label or more, returns 0.99 to 1.00, the best (5 seeds). `paper`
has the sizes of the reference implementation's networks: 33 minutes on one core.
"""

from dt_jax.config import check_dataset, default_config
from dt_jax.config.presets import TABULAR

# Ours. The labels need no large networks, and the policy no dropout.
LAPTOP = {
    **TABULAR,
    "eval_episodes": 100,
    "attention_dropout": 0.0,
    "residual_dropout": 0.0,
    "embedding_dropout": 0.0,
    "return_dim": 32,
    "return_batch_size": 128,
    "return_lr": 3e-3,
    "dynamics_lr": 3e-2,
    "cluster_updates": 1_000,
    "return_updates": 400,
}
# The reference's labels and policy, of as many updates as its policy needs here.
PAPER = {
    "seq_len": 20,
    "update_steps": 5_000,
    "eval_every": 5_000,
    "episode_len": None,
}


def get_config(size: str = "laptop"):
    """Return the configuration of a size, "laptop" or "paper"."""
    check_dataset(size, ("laptop", "paper"))
    return default_config(
        "esper",
        env_name="gambling-demo",
        target_returns=(5.0, 1.0, -2.5, -5.0),
        reward_scale=0.2,
        cluster_groups=1,
        cluster_classes=8,
        sample_actions=True,
        **LAPTOP if size == "laptop" else PAPER,
    )
