"""Your own data with a Q-value regularised Transformer; see configs/own_data.py.

  python launch.py --config=configs/qt/own_data.py --config.data_path=my.hdf5

With `--config.mode=qcs` a critic of 20,000 updates is trained first.
"""

from dt_jax.config.presets import LAPTOP, QT_LAPTOP, own_data


def get_config():
    """Return a run sized for a laptop, with all data-dependent keys left open."""
    keys = LAPTOP | QT_LAPTOP | {"critic_update_steps": 20_000}
    return own_data("qt", critic_reward_scale=None, **keys)
