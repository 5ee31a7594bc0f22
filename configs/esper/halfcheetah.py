"""HalfCheetah, ESPER: the datasets of configs/halfcheetah.py.

  python launch.py --config=configs/esper/halfcheetah.py:medium

The paper has no scores on these datasets. Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import esper


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    return esper("halfcheetah", dataset)
