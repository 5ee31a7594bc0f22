"""An ant in a maze, rewarded at its goal alone: D4RL's six antmaze datasets.

  python launch.py --config=configs/antmaze.py:umaze

Normalised score at the last evaluation that CORL publishes for its Decision
Transformer (mean ± standard deviation over seeds; theirs, not ours):

  umaze           57.00 ± 9.82
  umaze-diverse   51.75 ± 0.43
  medium-play     0.00 ± 0.00
  medium-diverse  0.00 ± 0.00
  large-play      0.00 ± 0.00
  large-diverse   0.00 ± 0.00

Our own times: not measured.
"""

from configs import default

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


def get_config(dataset: str = "umaze"):
    """Return CORL's hyper-parameters for `dataset`."""
    default.check_dataset(dataset, DATASETS)
    return default.for_dataset(
        f"antmaze-{dataset}-v2",
        reward_scale=1.0,
        target_returns=DIVERSE_TARGETS if dataset.endswith("diverse") else TARGETS,
    )
