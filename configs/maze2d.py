"""A ball in a maze, seen without its goal: D4RL's three maze2d datasets.

  python launch.py --config=configs/maze2d.py:umaze

Normalised score at the last evaluation that CORL publishes for its Decision
Transformer (mean ± standard deviation over seeds; theirs, not ours):

  umaze   18.08 ± 25.42
  medium  31.71 ± 26.33
  large   35.66 ± 28.20

Our own times: not measured.
"""

from configs import default

DATASETS = ("umaze", "medium", "large")


def get_config(dataset: str = "umaze"):
    """Return CORL's hyper-parameters for `dataset`."""
    default.check_dataset(dataset, DATASETS)
    return default.for_dataset(
        f"maze2d-{dataset}-v1",
        **default.LARGE_BATCH,
        reward_scale=1.0,
        target_returns=(280.0, 140.0),
    )
