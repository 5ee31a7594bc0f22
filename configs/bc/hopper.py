"""Hopper, behaviour cloning: three D4RL datasets and a demo dataset (`demo`).

  python launch.py --config=configs/bc/hopper.py:medium
  python launch.py --config=configs/bc/hopper.py:medium --config.top_fraction=0.1

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449) of BC, and of BC-10%, which is top_fraction=0.1:

  medium         53.51 ± 1.76  55.48 ± 7.30
  medium-replay  29.81 ± 2.07  70.42 ± 8.66
  medium-expert  52.30 ± 4.01  111.16 ± 1.03

Scores of dt_jax on these datasets: not measured. `demo` needs no download and is sized
for a laptop; its scores are not D4RL's.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    return single_step("bc", "hopper", dataset)
