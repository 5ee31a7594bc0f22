"""Maze2D, Q-learning DT: the datasets of configs/maze2d.py.

  python launch.py --config=configs/qdt/maze2d.py:umaze

Published normalised scores (Yamagata et al., 2023, as reported by a third party):

  umaze   57.3  (its Decision Transformer 31.0)
  medium  13.3  (8.2)
  large   31.0  (2.3)

The paper's critic is cql, the default here iql: --config.critic=cql.
Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import q_learning_dt


def get_config(dataset: str = "umaze"):
    """Return the configuration for `dataset`."""
    return q_learning_dt("maze2d", dataset)
