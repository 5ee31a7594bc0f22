"""AntMaze, Q-learning DT: the datasets of configs/antmaze.py.

  python launch.py --config=configs/qdt/antmaze.py:umaze

The paper has no scores on these datasets. Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import q_learning_dt


def get_config(dataset: str = "umaze"):
    """Return the configuration for `dataset`."""
    return q_learning_dt("antmaze", dataset)
