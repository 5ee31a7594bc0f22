"""Corridor with a Q-value regularised Transformer.

python launch.py --config=configs/qt/corridor.py
"""

from dt_jax.config import default_config
from dt_jax.config.presets import TABULAR


def get_config():
    """Return the configuration."""
    return default_config(
        "qt",
        env_name="corridor-demo",
        target_returns=(10.0,),
        reward_scale=0.1,
        k_rewards=False,
        discount=1.0,
        tau=0.02,
        critic_dim=64,
        critic_layers=2,
        ema_every=1,
        ema_start=0,
        candidate_std=1.0,
        choice_temperature=0.1,
        critic_update_steps=2_000,
        **TABULAR,
    )
