"""Walker2d, behaviour cloning: three D4RL datasets and a demo dataset (`demo`).

  python launch.py --config=configs/bc/walker2d.py:medium
  python launch.py --config=configs/bc/walker2d.py:medium --config.top_fraction=0.1

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449) of BC, and of BC-10%, which is top_fraction=0.1:

  medium         63.23 ± 16.24  67.34 ± 5.17
  medium-replay  21.80 ± 10.15  54.35 ± 6.34
  medium-expert  98.96 ± 15.98  108.70 ± 0.25

Scores of dt_jax on these datasets: not measured. `demo` needs no download and is sized
for a laptop; its scores are not D4RL's.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    return single_step("bc", "walker2d", dataset)
