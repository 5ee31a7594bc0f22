"""Maze2D, ESPER: the datasets of configs/maze2d.py.

  python launch.py --config=configs/esper/maze2d.py:umaze

The paper has no scores on these datasets. Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import esper


def get_config(dataset: str = "umaze"):
    """Return the configuration for `dataset`."""
    return esper("maze2d", dataset)
