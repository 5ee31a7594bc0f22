"""Your own data with implicit Q-learning; see configs/own_data.py.

  python launch.py --config=configs/iql/own_data.py --config.data_path=my.hdf5

10,000 updates; RUN/summary.png shows whether Q has converged.
"""

from dt_jax.config.presets import own_data, single_step_laptop


def get_config():
    """Return a run sized for a laptop, with all data-dependent keys left open."""
    return own_data("iql", **single_step_laptop("iql"))
