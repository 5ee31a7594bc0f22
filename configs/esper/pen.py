"""Adroit pen, ESPER: the datasets of configs/pen.py.

  python launch.py --config=configs/esper/pen.py:human

The paper has no scores on these datasets. Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import esper


def get_config(dataset: str = "human"):
    """Return the configuration for `dataset`."""
    return esper("pen", dataset)
