"""Your own data with ESPER: values that depend on the data are taken from it.

  python launch.py --config=configs/esper/own_data.py --config.data_path=my.hdf5

As configs/own_data.py. The networks that learn the labels are small enough for a
laptop. --config.labels=expected suffices where an episode has one decision that
counts, and takes a fraction of the time.
"""

from dt_jax.config.presets import LAPTOP, own_data


def get_config():
    """Return a run sized for a laptop, with all data-dependent keys left open."""
    return own_data(
        "esper",
        return_dim=128,
        return_batch_size=16,
        return_lr=1e-3,
        dynamics_lr=5e-3,
        cluster_updates=2_000,
        return_updates=1_000,
        **LAPTOP,
    )
