"""HalfCheetah, behaviour cloning: three D4RL datasets and a demo dataset (`demo`).

  python launch.py --config=configs/bc/halfcheetah.py:medium
  python launch.py --config=configs/bc/halfcheetah.py:medium --config.top_fraction=0.1

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449) of BC, and of BC-10%, which is top_fraction=0.1:

  medium         42.40 ± 0.19  42.46 ± 0.70
  medium-replay  35.66 ± 2.33  23.59 ± 6.95
  medium-expert  55.95 ± 7.35  90.10 ± 2.45

Scores of dt_jax on these datasets: not measured. `demo` needs no download and is sized
for a laptop; its scores are not D4RL's.
"""

from dt_jax.config.presets import single_step


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    return single_step("bc", "halfcheetah", dataset)
