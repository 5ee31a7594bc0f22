"""Adroit pen: turn a pen to a given orientation. Three D4RL datasets.

  python launch.py --config=configs/pen.py:human

CORL's published normalised scores (last evaluation of its Decision Transformer, mean ±
standard deviation over seeds):

  human   67.68 ± 5.48
  cloned  64.43 ± 1.43
  expert  116.38 ± 1.27

Scores of dt_jax on these datasets: not measured.
"""

from dt_jax.config import check_dataset, default_config
from dt_jax.config.presets import LARGE_BATCH

DATASETS = ("human", "cloned", "expert")


def get_config(dataset: str = "human"):
    """Return CORL's hyper-parameters for `dataset`."""
    check_dataset(dataset, DATASETS)
    return default_config(
        env_name=f"pen-{dataset}-v1",
        **LARGE_BATCH,
        reward_scale=1.0,
        target_returns=(3100.0, 1550.0),
    )
