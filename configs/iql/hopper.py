"""Hopper, Implicit Q-learning: three D4RL datasets and a demo dataset (`demo`).

  python launch.py --config=configs/iql/hopper.py:medium

CORL's published normalised scores (last evaluation, mean ± standard deviation over
seeds; its README at commit 022e449):

  medium         67.53 ± 3.78
  medium-replay  97.43 ± 6.39
  medium-expert  107.42 ± 7.80

Scores of dt_jax on these datasets: not measured. `demo` needs no download and is sized
for a laptop; its scores are not D4RL's.

Hyper-parameters: CORL's configs/offline/iql/hopper. Where CORL scales the rewards so
that the data's returns span 1000 (medium and medium-replay), its beta of 3 is about 1
here, where beta is per unit of the data's rewards: the returns span about 2,900 and
3,200 (recalled, not verified).
"""

from dt_jax.config.presets import single_step

# Other keys than the family's. A policy of squared errors, and a slower target.
_NORMALIZED = {"beta": 1.0, "iql_deterministic": True, "tau": 0.001}
KEYS = {
    "medium": _NORMALIZED,
    "medium-replay": _NORMALIZED,
    "medium-expert": {"beta": 6.0, "iql_tau": 0.5},
}


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    return single_step("iql", "hopper", dataset, **KEYS.get(dataset, {}))
