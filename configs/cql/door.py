"""Adroit door, Conservative Q-learning: three D4RL datasets.

  python launch.py --config=configs/cql/door.py:human

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449):

  human   5.53 ± 1.31
  cloned  -0.33 ± 0.01
  expert  -0.32 ± 0.02

Scores of dt_jax on these datasets: not measured.

Hyper-parameters: those of the critic of Q-learning DT, as in d3rlpy's
reproductions/offline/qdt.py, and not CORL's, which differ by family.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "human"):
    """Return the configuration for `dataset`."""
    return single_step("cql", "door", dataset)
