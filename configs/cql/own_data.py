"""Your own data with conservative Q-learning; see configs/own_data.py.

  python launch.py --config=configs/cql/own_data.py --config.data_path=my.hdf5

10,000 updates, of networks of half the paper's width. Actions are continuous.
"""

from dt_jax.config.presets import own_data, single_step_laptop


def get_config():
    """Return a run sized for a laptop, with all data-dependent keys left open."""
    return own_data("cql", **single_step_laptop("cql"))
