"""Adroit pen, Conservative Q-learning: three D4RL datasets.

  python launch.py --config=configs/cql/pen.py:human

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449):

  human   13.71 ± 16.98
  cloned  1.04 ± 6.62
  expert  -1.41 ± 2.34

Scores of dt_jax on these datasets: not measured.

Hyper-parameters: those of the critic of Q-learning DT, as in d3rlpy's
reproductions/offline/qdt.py, and not CORL's, which differ by family.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "human"):
    """Return the configuration for `dataset`."""
    return single_step("cql", "pen", dataset)
