"""HalfCheetah, Implicit Q-learning: three D4RL datasets and a demo dataset (`demo`).

  python launch.py --config=configs/iql/halfcheetah.py:medium

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449):

  medium         48.31 ± 0.22
  medium-replay  44.46 ± 0.22
  medium-expert  94.74 ± 0.52

Scores of dt_jax on these datasets: not measured. `demo` needs no download and is sized
for a laptop; its scores are not D4RL's.

Hyper-parameters: CORL's configs/offline/iql/halfcheetah.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    return single_step("iql", "halfcheetah", dataset)
