"""Maze2D, behaviour cloning: three D4RL datasets and as many demo datasets.

  python launch.py --config=configs/bc/maze2d.py:umaze
  python launch.py --config=configs/bc/maze2d.py:umaze-demo
  python launch.py --config=configs/bc/maze2d.py:umaze --config.top_fraction=0.1

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449) of BC, and of BC-10%, which is top_fraction=0.1:

  umaze   0.36 ± 8.69  12.18 ± 4.29
  medium  0.79 ± 3.25  14.25 ± 2.33
  large   2.26 ± 4.39  11.32 ± 5.10

Scores of dt_jax on these datasets: not measured. The demo datasets (`umaze-demo` and
so on) are collected on first use and sized for a laptop; their scores are not D4RL's.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "umaze"):
    """Return the configuration for `dataset`."""
    return single_step("bc", "maze2d", dataset, eval_episodes=100)
