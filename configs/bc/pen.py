"""Adroit pen, behaviour cloning: three D4RL datasets.

  python launch.py --config=configs/bc/pen.py:human
  python launch.py --config=configs/bc/pen.py:human --config.top_fraction=0.1

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449) of BC, and of BC-10%, which is top_fraction=0.1:

  human   71.03 ± 6.26   26.99 ± 9.60
  cloned  51.92 ± 15.15  46.67 ± 14.25
  expert  109.65 ± 7.28  114.96 ± 2.96

Scores of dt_jax on these datasets: not measured.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "human"):
    """Return the configuration for `dataset`."""
    return single_step("bc", "pen", dataset)
