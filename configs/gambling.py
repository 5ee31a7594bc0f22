"""Gambling, in which a Decision Transformer takes luck for skill.

  python launch.py --config=configs/gambling.py

The data (`dt_jax/envs/tabular.py`) is random. Of its three first actions, the first
returns 5 or -15 with the same probability, the third always 1. Asked for 5, a Decision
Transformer imitates the lucky ones and returns -5 on average; the best policy returns
1. Measured after 2,000 updates, 3 seeds: -6.2 in the same 100 episodes, whose standard
error is 1.
"""

from dt_jax.config import default_config
from dt_jax.config.presets import TABULAR


def get_config():
    """Return the configuration."""
    return default_config(
        env_name="gambling-demo",
        target_returns=(5.0, 1.0, -2.5, -5.0),
        reward_scale=0.1,
        sample_actions=True,
        **TABULAR | {"eval_episodes": 100},
    )
