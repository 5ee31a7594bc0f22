"""Adroit relocate, behaviour cloning: three D4RL datasets.

  python launch.py --config=configs/bc/relocate.py:human
  python launch.py --config=configs/bc/relocate.py:human --config.top_fraction=0.1

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449) of BC, and of BC-10%, which is top_fraction=0.1:

  human   0.04 ± 0.03    -0.14 ± 0.08
  cloned  -0.06 ± 0.01   -0.00 ± 0.02
  expert  107.58 ± 1.20  97.90 ± 5.21

Scores of dt_jax on these datasets: not measured.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "human"):
    """Return the configuration for `dataset`."""
    return single_step("bc", "relocate", dataset)
