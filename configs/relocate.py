"""Adroit relocate: carry a ball to a given place. Three D4RL datasets.

  python launch.py --config=configs/relocate.py:human

CORL's published normalised scores (last evaluation of its Decision Transformer, mean ±
standard deviation over seeds):

  human   0.05 ± 0.01
  cloned  0.16 ± 0.09
  expert  104.28 ± 0.42

Scores of dt_jax on these datasets: not measured.
"""

from dt_jax.config import check_dataset, default_config
from dt_jax.config.presets import LARGE_BATCH

DATASETS = ("human", "cloned", "expert")


def get_config(dataset: str = "human"):
    """Return CORL's hyper-parameters for `dataset`."""
    check_dataset(dataset, DATASETS)
    return default_config(
        env_name=f"relocate-{dataset}-v1",
        **LARGE_BATCH,
        reward_scale=1.0,
        target_returns=(4300.0, 2150.0),
    )
