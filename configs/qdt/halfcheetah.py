"""HalfCheetah, Q-learning DT: the datasets of configs/halfcheetah.py.

  python launch.py --config=configs/qdt/halfcheetah.py:medium

Published normalised scores (Yamagata et al., 2023, as reported by a third party):

  medium         42.3  (its Decision Transformer 42.1)
  medium-replay  35.6  (34.1)

The paper's critic is cql, the default here iql: --config.critic=cql.
Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import q_learning_dt


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    if dataset == "demo":
        return q_learning_dt("halfcheetah", dataset)
    return q_learning_dt("halfcheetah", dataset, target_returns=(6000.0,))
