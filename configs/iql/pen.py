"""Adroit pen, Implicit Q-learning: three D4RL datasets.

  python launch.py --config=configs/iql/pen.py:human

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449):

  human   78.49 ± 8.21
  cloned  83.42 ± 8.19
  expert  128.05 ± 9.21

Scores of dt_jax on these datasets: not measured.

Hyper-parameters: CORL's configs/offline/iql/pen. CORL's code does not apply its
actor_dropout to a stochastic policy; here it is applied.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "human"):
    """Return the configuration for `dataset`."""
    return single_step("iql", "pen", dataset, iql_tau=0.8, actor_dropout=0.1)
