"""Your own data: values that depend on the data are taken from it and printed.

  python launch.py --config=configs/own_data.py --config.data_path=my.hdf5

Unless env_name is given, no episodes are played: a tenth of the trajectories is held
out and eval/holdout_action_mse is measured on it. docs/datasets.md has an example.
"""

from dt_jax.config.presets import LAPTOP, own_data


def get_config():
    """Return a run sized for a laptop, with all data-dependent keys left open."""
    return own_data("dt", **LAPTOP)
