"""Adroit door, Implicit Q-learning: three D4RL datasets.

  python launch.py --config=configs/iql/door.py:human

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449):

  human   3.26 ± 1.83
  cloned  3.07 ± 1.75
  expert  106.65 ± 0.25

Scores of dt_jax on these datasets: not measured.

Hyper-parameters: CORL's configs/offline/iql/door. CORL's code does not apply its
actor_dropout to a stochastic policy; here it is applied.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "human"):
    """Return the configuration for `dataset`."""
    return single_step("iql", "door", dataset, iql_tau=0.8, actor_dropout=0.1)
