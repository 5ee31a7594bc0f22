"""Gambling with ESPER, which does not take luck for skill.

python launch.py --config=configs/esper/gambling.py
"""

from dt_jax.config import default_config
from dt_jax.config.presets import TABULAR


def get_config(size: str = "laptop"):
    """Return the configuration."""
    return default_config(
        "esper",
        env_name="gambling-demo",
        target_returns=(5.0, 1.0, -2.5, -5.0),
        reward_scale=0.2,
        **TABULAR | {"eval_episodes": 100},
        cluster_groups=1,
        cluster_classes=8,
        return_dim=64,
        return_lr=1e-3,
        dynamics_lr=5e-3,
        cluster_updates=1000,
        return_updates=300,
    )
