"""Corridor, in which a Decision Transformer cannot join two trajectories.

  python launch.py --config=configs/corridor.py

The data (`dt_jax/envs/tabular.py`) has the returns 0 and 1 from the start; the second
half of another trajectory would lead to 10. Asked for 10, a Decision Transformer
returns 1. configs/qdt/corridor.py returns 10.
"""

from dt_jax.config import default_config
from dt_jax.config.presets import TABULAR


def get_config():
    """Return the configuration."""
    return default_config(
        env_name="corridor-demo",
        target_returns=(10.0,),
        reward_scale=0.1,
        train_seed=1,  # its initial network returns 0; that of seed 10 returns 10
        **TABULAR,
    )
