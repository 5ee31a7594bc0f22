"""Hopper, Q-learning DT: the datasets of configs/hopper.py.

  python launch.py --config=configs/qdt/hopper.py:medium

Published normalised scores (Yamagata et al., 2023, as reported by a third party):

  medium         66.5  (its Decision Transformer 60.3)
  medium-replay  52.1  (63.7)

The paper's critic is cql, the default here iql: --config.critic=cql.
Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import q_learning_dt


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    if dataset == "demo":
        return q_learning_dt("hopper", dataset)
    return q_learning_dt("hopper", dataset, target_returns=(3600.0,))
