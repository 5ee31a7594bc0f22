"""AntMaze, ESPER: the datasets of configs/antmaze.py.

  python launch.py --config=configs/esper/antmaze.py:umaze

The paper has no scores on these datasets. Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import esper


def get_config(dataset: str = "umaze"):
    """Return the configuration for `dataset`."""
    return esper("antmaze", dataset)
