"""Walker2d: three D4RL datasets, and a demo dataset (`demo`).

  python launch.py --config=configs/walker2d.py:medium

CORL's published normalised scores (last evaluation of its Decision Transformer, mean ±
standard deviation over seeds):

  medium         67.63 ± 2.54
  medium-replay  59.86 ± 2.73
  medium-expert  107.11 ± 0.96

Scores of dt_jax on these datasets: not measured. `demo` needs no download and is sized
for a laptop; its scores are not D4RL's.
"""

from dt_jax.config.presets import locomotion


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    return locomotion(
        "walker2d",
        dataset,
        target_returns=(5000.0, 2500.0),
        demo_target_returns=(2200.0, 750.0, 500.0, 400.0),
    )
