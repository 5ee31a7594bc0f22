"""Adroit hammer: drive a nail in. Three D4RL datasets.

  python launch.py --config=configs/hammer.py:human

CORL's published normalised scores (last evaluation of its Decision Transformer, mean ±
standard deviation over seeds):

  human   1.28 ± 0.15
  cloned  1.82 ± 0.55
  expert  117.45 ± 6.65

Scores of dt_jax on these datasets: not measured.
"""

from dt_jax.config import check_dataset, default_config
from dt_jax.config.presets import LARGE_BATCH

DATASETS = ("human", "cloned", "expert")


def get_config(dataset: str = "human"):
    """Return CORL's hyper-parameters for `dataset`."""
    check_dataset(dataset, DATASETS)
    return default_config(
        env_name=f"hammer-{dataset}-v1",
        **LARGE_BATCH,
        reward_scale=1.0,
        target_returns=(12800.0, 6400.0),
    )
