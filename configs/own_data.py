"""Your own data: what depends on it is taken from it, and printed.

  python launch.py --config=configs/own_data.py --config.data_path=my.hdf5

Nothing is played unless env_name is given, so that a tenth of the trajectories is kept
from training and eval/holdout_action_mse measured on them. docs/data.md has an example.
"""

from dt_jax.config import default_config
from dt_jax.config.presets import LAPTOP


def get_config():
    """Return a run that a laptop finishes, with everything else taken from the data."""
    return default_config(
        name="own-data",
        env_name=None,
        episode_len=None,
        max_action=None,
        reward_scale=None,
        target_returns=None,
        **LAPTOP,
    )
