"""Hopper: three D4RL datasets, and a demo dataset (`demo`).

  python launch.py --config=configs/hopper.py:medium

CORL's published normalised scores (last evaluation of its Decision Transformer, mean ±
standard deviation over seeds):

  medium         65.10 ± 1.61
  medium-replay  81.77 ± 6.87
  medium-expert  110.44 ± 0.33

Scores of dt_jax on these datasets: not measured. `demo` needs no download and is sized
for a laptop; its scores are not D4RL's.
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
