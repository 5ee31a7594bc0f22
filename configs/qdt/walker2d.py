"""Walker2d, Q-learning DT: the datasets of configs/walker2d.py.

  python launch.py --config=configs/qdt/walker2d.py:medium

Published normalised scores (Yamagata et al., 2023, as reported by a third party):

  medium         67.1  (its Decision Transformer 73.3)
  medium-replay  58.2  (60.2)

The paper's critic is cql, the default here iql: --config.critic=cql.
Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import q_learning_dt


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    if dataset == "demo":
        return q_learning_dt("walker2d", dataset)
    return q_learning_dt("walker2d", dataset, target_returns=(5000.0,))
