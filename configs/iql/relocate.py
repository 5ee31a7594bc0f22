"""Adroit relocate, Implicit Q-learning: three D4RL datasets.

  python launch.py --config=configs/iql/relocate.py:human

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449):

  human   0.12 ± 0.04
  cloned  0.04 ± 0.01
  expert  106.11 ± 4.02

Scores of dt_jax on these datasets: not measured.

Hyper-parameters: CORL's configs/offline/iql/relocate. CORL's code does not apply its
actor_dropout to a stochastic policy; here it is applied.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "human"):
    """Return the configuration for `dataset`."""
    return single_step("iql", "relocate", dataset, iql_tau=0.8, actor_dropout=0.1)
