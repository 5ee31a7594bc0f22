"""Adroit hammer, Q-learning DT: the datasets of configs/hammer.py.

  python launch.py --config=configs/qdt/hammer.py:human

The paper has no scores on these datasets. Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import q_learning_dt


def get_config(dataset: str = "human"):
    """Return the configuration for `dataset`."""
    return q_learning_dt("hammer", dataset)
