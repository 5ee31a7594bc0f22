"""Adroit door, behaviour cloning: three D4RL datasets.

  python launch.py --config=configs/bc/door.py:human
  python launch.py --config=configs/bc/door.py:human --config.top_fraction=0.1

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449) of BC, and of BC-10%, which is top_fraction=0.1:

  human   2.34 ± 4.00    -0.13 ± 0.07
  cloned  -0.09 ± 0.03   0.29 ± 0.59
  expert  105.35 ± 0.09  104.04 ± 1.46

Scores of dt_jax on these datasets: not measured.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "human"):
    """Return the configuration for `dataset`."""
    return single_step("bc", "door", dataset)
