"""Hopper, Conservative Q-learning: three D4RL datasets and a demo dataset (`demo`).

  python launch.py --config=configs/cql/hopper.py:medium

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449):

  medium         59.08 ± 3.77
  medium-replay  95.11 ± 5.27
  medium-expert  99.26 ± 10.91

Scores of dt_jax on these datasets: not measured. `demo` needs no download and is sized
for a laptop; its scores are not D4RL's.

Hyper-parameters: those of the critic of Q-learning DT, as in d3rlpy's
reproductions/offline/qdt.py, and not CORL's, which differ by family.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    return single_step("cql", "hopper", dataset)
