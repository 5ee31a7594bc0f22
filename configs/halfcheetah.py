"""HalfCheetah: three D4RL datasets, and a demo dataset (`demo`).

  python launch.py --config=configs/halfcheetah.py:medium

CORL's published normalised scores (last evaluation of its Decision Transformer, mean ±
standard deviation over seeds):

  medium         42.20 ± 0.26
  medium-replay  38.91 ± 0.50
  medium-expert  91.55 ± 0.95

Scores of dt_jax on these datasets: not measured. `demo` needs no download and is sized
for a laptop; its scores are not D4RL's.
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
