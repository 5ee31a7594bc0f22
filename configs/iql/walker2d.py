"""Walker2d, Implicit Q-learning: three D4RL datasets and a demo dataset (`demo`).

  python launch.py --config=configs/iql/walker2d.py:medium

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449):

  medium         80.91 ± 3.17
  medium-replay  82.15 ± 3.03
  medium-expert  111.72 ± 0.86

Scores of dt_jax on these datasets: not measured. `demo` needs no download and is sized
for a laptop; its scores are not D4RL's.

Hyper-parameters: CORL's configs/offline/iql/walker2d.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    return single_step("iql", "walker2d", dataset)
