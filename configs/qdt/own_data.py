"""Your own data with Q-learning DT: values that depend on the data are taken from it.

  python launch.py --config=configs/qdt/own_data.py --config.data_path=my.hdf5

As configs/own_data.py, after a critic of 20,000 updates. A discount near 1 lets values
count as much as the returns that they are compared with.
"""

from dt_jax.config import default_config
from dt_jax.config.presets import LAPTOP


def get_config():
    """Return a run sized for a laptop, with all data-dependent keys left open."""
    return default_config(
        "qdt",
        name="own-data-qdt",
        env_name=None,
        episode_len=None,
        max_action=None,
        reward_scale=None,
        target_returns=None,
        critic_update_steps=20_000,
        **LAPTOP,
    )
