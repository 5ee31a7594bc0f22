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

from dt_jax.config.presets import locomotion


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    return locomotion(
        "halfcheetah",
        dataset,
        target_returns=(12000.0, 6000.0),
        demo_target_returns=(4000.0, 2900.0, 1700.0, 400.0),
    )
