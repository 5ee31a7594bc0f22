"""Adroit hammer, ESPER: the datasets of configs/hammer.py.

  python launch.py --config=configs/esper/hammer.py:human

The paper has no scores on these datasets. Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import esper


def get_config(dataset: str = "human"):
    """Return the configuration for `dataset`."""
    return esper("hammer", dataset)
