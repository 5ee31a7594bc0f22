"""Hopper: D4RL's three datasets, and one that we collect ourselves (`demo`).

  python launch.py --config=configs/hopper.py:medium

Normalised score at the last evaluation that CORL publishes for its Decision
Transformer (mean ± standard deviation over seeds; theirs, not ours):

  medium         65.10 ± 1.61
  medium-replay  81.77 ± 6.87
  medium-expert  110.44 ± 0.33

`demo` needs no download and is sized for a laptop; its scores are not D4RL's.

Our own times: not measured.
"""

from configs import default

DATASETS = ("medium", "medium-replay", "medium-expert", "demo")


def get_config(dataset: str = "medium"):
    """Return CORL's hyper-parameters for `dataset`, ours for `demo`."""
    default.check_dataset(dataset, DATASETS)
    if dataset == "demo":
        return default.for_dataset(
            "hopper-demo",
            **default.LAPTOP,
            target_returns=(2800.0, 1800.0, 1100.0, 400.0),
        )
    return default.for_dataset(
        f"hopper-{dataset}-v2",
        **default.LARGE_BATCH,
        target_returns=(3600.0, 1800.0),
    )
