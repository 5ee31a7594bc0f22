"""Maze2D, Implicit Q-learning: three D4RL datasets and as many demo datasets.

  python launch.py --config=configs/iql/maze2d.py:umaze
  python launch.py --config=configs/iql/maze2d.py:umaze-demo

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449):

  umaze   42.11 ± 0.58
  medium  34.85 ± 2.72
  large   61.72 ± 3.50

Scores of dt_jax on these datasets: not measured. The demo datasets (`umaze-demo` and
so on) are collected on first use and sized for a laptop; their scores are not D4RL's.

Hyper-parameters: CORL's configs/offline/iql/maze2d.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "umaze"):
    """Return the configuration for `dataset`."""
    return single_step("iql", "maze2d", dataset, eval_episodes=100)
