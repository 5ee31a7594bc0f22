"""Adroit door: open a door. Three D4RL datasets.

  python launch.py --config=configs/door.py:human

CORL's published normalised scores (last evaluation of its Decision Transformer, mean ±
standard deviation over seeds):

  human   4.44 ± 0.87
  cloned  7.64 ± 3.26
  expert  104.87 ± 0.39

Scores of dt_jax on these datasets: not measured.
"""

from dt_jax.config import check_dataset, default_config
from dt_jax.config.presets import LARGE_BATCH

DATASETS = ("human", "cloned", "expert")


def get_config(dataset: str = "human"):
    """Return CORL's hyper-parameters for `dataset`."""
    check_dataset(dataset, DATASETS)
    return default_config(
        env_name=f"door-{dataset}-v1",
        **LARGE_BATCH,
        reward_scale=1.0,
        target_returns=(2900.0, 1450.0),
    )
