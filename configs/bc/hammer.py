"""Adroit hammer, behaviour cloning: three D4RL datasets.

  python launch.py --config=configs/bc/hammer.py:human
  python launch.py --config=configs/bc/hammer.py:human --config.top_fraction=0.1

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449) of BC, and of BC-10%, which is top_fraction=0.1:

  human   3.03 ± 3.39    -0.19 ± 0.02
  cloned  0.55 ± 0.16    0.12 ± 0.08
  expert  126.78 ± 0.64  121.75 ± 7.67

Scores of dt_jax on these datasets: not measured.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "human"):
    """Return the configuration for `dataset`."""
    return single_step("bc", "hammer", dataset)
