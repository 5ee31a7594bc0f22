"""AntMaze, Implicit Q-learning: six D4RL datasets and as many demo datasets.

  python launch.py --config=configs/iql/antmaze.py:umaze
  python launch.py --config=configs/iql/antmaze.py:umaze-demo

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449):

  umaze           77.00 ± 5.52
  umaze-diverse   54.25 ± 5.54
  medium-play     65.75 ± 11.71
  medium-diverse  73.75 ± 5.45
  large-play      42.00 ± 4.53
  large-diverse   30.25 ± 3.63

Scores of dt_jax on these datasets: not measured. The demo datasets (`umaze-demo` and
so on) are collected on first use and sized for a laptop; their scores are not D4RL's.

Hyper-parameters: CORL's configs/offline/iql/antmaze. It subtracts 1 from each reward.
Where episodes end at the goal, the values are then 100 V - 100 for discount 0.99, and
the advantages 100 times those of the data's rewards: its beta of 10 is 1000 here.
reward_scale 100 keeps the values of the size that they have in CORL.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "umaze"):
    """Return the configuration for `dataset`."""
    return single_step(
        "iql",
        "antmaze",
        dataset,
        beta=1000.0,
        iql_tau=0.9,
        reward_scale=100.0,
        eval_episodes=100,
    )
