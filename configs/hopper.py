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

from dt_jax.config.presets import locomotion


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    return locomotion(
        "hopper",
        dataset,
        target_returns=(3600.0, 1800.0),
        demo_target_returns=(3400.0, 2400.0, 1250.0, 400.0),
    )
