"""AntMaze, Conservative Q-learning: six D4RL datasets and as many demo datasets.

  python launch.py --config=configs/cql/antmaze.py:umaze
  python launch.py --config=configs/cql/antmaze.py:umaze-demo

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449):

  umaze           92.75 ± 1.92
  umaze-diverse   37.25 ± 3.70
  medium-play     65.75 ± 11.61
  medium-diverse  67.25 ± 3.56
  large-play      20.75 ± 7.26
  large-diverse   20.50 ± 13.24

Scores of dt_jax on these datasets: not measured. The demo datasets (`umaze-demo` and
so on) are collected on first use and sized for a laptop; their scores are not D4RL's.

Hyper-parameters: those of the critic of Q-learning DT, as in d3rlpy's
reproductions/offline/qdt.py, and not CORL's, which differ by family.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "umaze"):
    """Return the configuration for `dataset`."""
    return single_step("cql", "antmaze", dataset, eval_episodes=100)
