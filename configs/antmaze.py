"""An ant in a maze, rewarded at its goal alone: D4RL's six datasets, and six of ours.

  python launch.py --config=configs/antmaze.py:umaze
  python launch.py --config=configs/antmaze.py:umaze-demo

Normalised score at the last evaluation that CORL publishes for its Decision
Transformer (mean ± standard deviation over seeds; theirs, not ours):

  umaze           57.00 ± 9.82
  umaze-diverse   51.75 ± 0.43
  medium-play     0.00 ± 0.00
  medium-diverse  0.00 ± 0.00
  large-play      0.00 ± 0.00
  large-diverse   0.00 ± 0.00

Each has a demo dataset, `umaze-demo` and so on, that is collected on first use by
D4RL's protocol. It is sized for a laptop; its scores are not D4RL's. `umaze-demo`
succeeds in 89 and 81 % of 100 episodes at targets 1 and 0.5 after 3,000 updates (seed
10; 97 % of its data's episodes do). On 2 cores of an AMD EPYC it takes 5 minutes, the
collecting of the data included. The other demos, and D4RL's own: not measured.
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
# CORL asks the diverse datasets for small fractions of the one reward as well.
DIVERSE_TARGETS = (1.0, 0.5, 0.25, 0.125, 0.06, 0.03)

# Ours. Without dropout: the data's noise is enough, and its rows are plenty.
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
