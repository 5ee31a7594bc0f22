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


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    return default.for_locomotion(
        "hopper",
        dataset,
        targets=(3600.0, 1800.0),
        demo_targets=(3400.0, 2400.0, 1250.0, 400.0),
    )
