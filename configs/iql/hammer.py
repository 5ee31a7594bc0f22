"""Adroit hammer, Implicit Q-learning: three D4RL datasets.

  python launch.py --config=configs/iql/hammer.py:human

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449):

  human   1.79 ± 0.80
  cloned  1.50 ± 0.69
  expert  128.68 ± 0.33

Scores of dt_jax on these datasets: not measured.

Hyper-parameters: CORL's configs/offline/iql/hammer. CORL's code does not apply its
actor_dropout to a stochastic policy; here it is applied.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "human"):
    """Return the configuration for `dataset`."""
    return single_step("iql", "hammer", dataset, iql_tau=0.8, actor_dropout=0.1)
