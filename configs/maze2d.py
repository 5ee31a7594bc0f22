"""Maze2D: a ball in a maze, seen without its goal. Three D4RL and three demo datasets.

  python launch.py --config=configs/maze2d.py:umaze
  python launch.py --config=configs/maze2d.py:umaze-demo

CORL's published normalised scores (last evaluation of its Decision Transformer, mean ±
standard deviation over seeds):

  umaze   18.08 ± 25.42
  medium  31.71 ± 26.33
  large   35.66 ± 28.20

The demo datasets are collected by D4RL's protocol, 200,000 steps for each maze; their
scores are not D4RL's. Their trajectories end at random goals, so few are rewarded: 26,
16 and 7 % of them, with a mean return of 5.9, 4.1 and 1.8. A trajectory to evaluation's
goal returns 12 at its end, one that leaves the goal 40, one that passes it 30; the best
return 51, 44 and 45.

Measured: `umaze-demo` scores 90.9 ± 4.7 and 90.9 ± 3.3 at target returns 40 and 12
after 3,000 updates (seed 10, 100 episodes, ± the standard error), in 2 minutes on 2
cores of an AMD EPYC, data collection included. The other datasets: not measured.
"""

from dt_jax.config import check_dataset, default_config
from dt_jax.config.presets import LARGE_BATCH

DATASETS = ("umaze", "medium", "large", "umaze-demo", "medium-demo", "large-demo")

# Ours: a few minutes on a laptop.
DEMO = {
    "embedding_dim": 64,
    "num_layers": 2,
    "seq_len": 10,
    "learning_rate": 8e-4,
    "update_steps": 3_000,
    "warmup_steps": 300,
    "eval_every": 1_500,
    "reward_scale": 0.1,
    "target_returns": (40.0, 12.0),  # see above
}


def get_config(dataset: str = "umaze"):
    """Return CORL's hyper-parameters for `dataset`, ours for a demo."""
    check_dataset(dataset, DATASETS)
    if dataset.endswith("-demo"):
        return default_config(env_name=f"maze2d-{dataset}", **DEMO)
    return default_config(
        env_name=f"maze2d-{dataset}-v1",
        **LARGE_BATCH,
        reward_scale=1.0,
        target_returns=(280.0, 140.0),
    )
