"""Every key at its default: `python launch.py --config=configs/default.py --help`."""

from dt_jax.config import default_config


def get_config():
    """Return the default configuration of the Decision Transformer."""
    return default_config()
