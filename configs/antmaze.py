"""AntMaze: an ant in a maze, rewarded only at its goal. Six D4RL and six demo datasets.

  python launch.py --config=configs/antmaze.py:umaze
  python launch.py --config=configs/antmaze.py:umaze-demo

CORL's published normalised scores (last evaluation of its Decision Transformer, mean ±
standard deviation over seeds):

  umaze           57.00 ± 9.82
  umaze-diverse   51.75 ± 0.43
  medium-play     0.00 ± 0.00
  medium-diverse  0.00 ± 0.00
  large-play      0.00 ± 0.00
  large-diverse   0.00 ± 0.00

Each has a demo dataset (`umaze-demo` and so on), collected on first use by D4RL's
protocol and sized for a laptop; its scores are not D4RL's. Measured: `umaze-demo`
succeeds in 89 and 81 % of 100 episodes at target returns 1 and 0.5 after 3,000 updates
(seed 10; 97 % of the episodes of its data succeed), in 5 minutes on 2 cores of an AMD
EPYC, data collection included. The other datasets: not measured.
"""

from dt_jax.config import check_dataset, default_config

DATASETS = (
    "umaze",
    "umaze-diverse",
    "medium-play",
    "medium-diverse",
    "large-play",
    "large-diverse",
)
TARGETS = (1.0, 0.5)
# On the diverse datasets CORL also uses small fractions of the one reward.
DIVERSE_TARGETS = (1.0, 0.5, 0.25, 0.125, 0.06, 0.03)

# Ours. No dropout: the data is noisy and large enough.
DEMO = {
    "embedding_dim": 128,
    "num_layers": 2,
    "seq_len": 5,
    "attention_dropout": 0.0,
    "residual_dropout": 0.0,
    "embedding_dropout": 0.0,
    "learning_rate": 1e-3,
    "batch_size": 256,
    "update_steps": 3_000,
    "warmup_steps": 300,
    "eval_every": 1_500,
    "target_returns": TARGETS,
}


def get_config(dataset: str = "umaze"):
    """Return CORL's hyper-parameters for `dataset`, ours for a demo."""
    demos = tuple(f"{name}-demo" for name in DATASETS)
    check_dataset(dataset, DATASETS + demos)
    if dataset in demos:
        return default_config(env_name=f"antmaze-{dataset}", reward_scale=1.0, **DEMO)
    return default_config(
        env_name=f"antmaze-{dataset}-v2",
        reward_scale=1.0,
        target_returns=DIVERSE_TARGETS if dataset.endswith("diverse") else TARGETS,
    )
