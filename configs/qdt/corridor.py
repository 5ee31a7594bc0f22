"""Corridor with Q-learning DT, which joins two trajectories of the data.

  python launch.py --config=configs/qdt/corridor.py

A Decision Transformer (configs/corridor.py) returns 1 when it is asked for 10.
"""

from dt_jax.config import default_config
from dt_jax.config.presets import TABULAR


def get_config():
    """Return the configuration."""
    return default_config(
        "qdt",
        env_name="corridor-demo",
        target_returns=(10.0,),
        reward_scale=0.1,
        discount=1.0,
        critic_dim=64,
        critic_update_steps=2_000,
        train_seed=1,  # its initial network returns 0; that of seed 10 returns 10
        **TABULAR,
    )
