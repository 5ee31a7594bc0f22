"""Corridor with a Q-value regularised Transformer.

  python launch.py --config=configs/qt/corridor.py
  python launch.py --config=configs/qt/corridor.py --config.mode=qcs

Both return 10, for each of 5 seeds; a Decision Transformer (configs/corridor.py) 1.
One-step targets join the trajectories, and candidates that span the data's returns
contain the one under which the policy takes the first step. Without either, qt
returns 1.
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
        num_candidates=50,
        candidate_std=1.0,
        choice_temperature=0.1,
        critic_update_steps=2_000,
        train_seed=1,  # its initial network returns 0; that of seed 10 returns 10
        **TABULAR,
    )
