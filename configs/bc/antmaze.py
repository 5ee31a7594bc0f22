"""AntMaze, behaviour cloning: six D4RL datasets and as many demo datasets.

  python launch.py --config=configs/bc/antmaze.py:umaze
  python launch.py --config=configs/bc/antmaze.py:umaze-demo
  python launch.py --config=configs/bc/antmaze.py:umaze --config.top_fraction=0.1

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449) of BC, and of BC-10%, which is top_fraction=0.1:

  umaze           55.25 ± 4.15  65.75 ± 5.26
  umaze-diverse   47.25 ± 4.09  44.00 ± 1.00
  medium-play     0.00 ± 0.00   2.00 ± 0.71
  medium-diverse  0.75 ± 0.83   5.75 ± 9.39
  large-play      0.00 ± 0.00   0.00 ± 0.00
  large-diverse   0.00 ± 0.00   0.75 ± 0.83

Scores of dt_jax on these datasets: not measured. The demo datasets (`umaze-demo` and
so on) are collected on first use and sized for a laptop; their scores are not D4RL's.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "umaze"):
    """Return the configuration for `dataset`."""
    return single_step("bc", "antmaze", dataset, eval_episodes=100)
