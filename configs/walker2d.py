"""Walker2d: D4RL's three datasets, and one that we collect ourselves (`demo`).

  python launch.py --config=configs/walker2d.py:medium

Normalised score at the last evaluation that CORL publishes for its Decision
Transformer (mean ± standard deviation over seeds; theirs, not ours):

  medium         67.63 ± 2.54
  medium-replay  59.86 ± 2.73
  medium-expert  107.11 ± 0.96

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
            "walker2d-demo",
            **default.LAPTOP,
            target_returns=(2000.0, 1000.0, 700.0, 400.0),
        )
    return default.for_dataset(
        f"walker2d-{dataset}-v2",
        **default.LARGE_BATCH,
        target_returns=(5000.0, 2500.0),
    )
