"""Maze2D, Conservative Q-learning: three D4RL datasets and as many demo datasets.

  python launch.py --config=configs/cql/maze2d.py:umaze
  python launch.py --config=configs/cql/maze2d.py:umaze-demo

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449):

  umaze   -8.90 ± 6.11
  medium  86.11 ± 9.68
  large   23.75 ± 36.70

Scores of dt_jax on these datasets: not measured. The demo datasets (`umaze-demo` and
so on) are collected on first use and sized for a laptop; their scores are not D4RL's.

Hyper-parameters: those of the critic of Q-learning DT, as in d3rlpy's
reproductions/offline/qdt.py, and not CORL's, which differ by family.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "umaze"):
    """Return the configuration for `dataset`."""
    return single_step("cql", "maze2d", dataset, eval_episodes=100)
