"""Your own data with Q-learning DT: values that depend on the data are taken from it.

  python launch.py --config=configs/qdt/own_data.py --config.data_path=my.hdf5

As configs/own_data.py, after a critic of 20,000 updates. Its discounted values are
compared with undiscounted returns: set discount=1 where rewards are negative and
episodes end by themselves, or discounted values exceed every return. The picture of
RUN/critic shows whether the critic has converged.
"""

from dt_jax.config.presets import LAPTOP, own_data


def get_config():
    """Return a run sized for a laptop, with all data-dependent keys left open."""
    return own_data("qdt", critic_update_steps=20_000, **LAPTOP)
