"""Your own data with behaviour cloning; see configs/own_data.py.

  python launch.py --config=configs/bc/own_data.py --config.data_path=my.hdf5

10,000 updates. --config.top_fraction=0.1 trains on the best tenth of the
trajectories.
"""

from dt_jax.config.presets import own_data, single_step_laptop


def get_config():
    """Return a run sized for a laptop, with all data-dependent keys left open."""
    return own_data("bc", **single_step_laptop("bc"))
