"""HalfCheetah: D4RL's three datasets, and one that we collect ourselves (`demo`).

  python launch.py --config=configs/halfcheetah.py:medium

Normalised score at the last evaluation that CORL publishes for its Decision
Transformer (mean ± standard deviation over seeds; theirs, not ours):

  medium         42.20 ± 0.26
  medium-replay  38.91 ± 0.50
  medium-expert  91.55 ± 0.95

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
            "halfcheetah-demo",
            **default.LAPTOP,
            target_returns=(2600.0, 1600.0, 1300.0, 200.0),
        )
    return default.for_dataset(
        f"halfcheetah-{dataset}-v2",
        **default.LARGE_BATCH,
        target_returns=(12000.0, 6000.0),
    )
