"""Hopper, Q-value regularised Transformer: the datasets of configs/hopper.py.

  python launch.py --config=configs/qt/hopper.py:medium

Published: 89.8 on average over nine locomotion datasets, a maximum over evaluations.
The scores by dataset are not repeated here, because they have the same bias.

Hyper-parameters: eta and clip_grad are those of the authors' run.sh (charleshsc/QT);
q_scale and q_min, used by mode=qcs, those of beanie00/QCS's scripts.sh.

Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import q_regularized_dt

BY_DATASET = {
    "medium": {"eta": 1.0, "clip_grad": 9.0},
    "medium-replay": {"eta": 3.0, "clip_grad": 9.0},
    "medium-expert": {"eta": 1.0, "clip_grad": 9.0},
}


def get_config(dataset: str = "medium"):
    """Return the paper's hyper-parameters for `dataset`, ours for a demo."""
    if dataset.endswith("demo"):
        return q_regularized_dt("hopper", dataset)
    own = BY_DATASET.get(dataset, {})
    return q_regularized_dt(
        "hopper", dataset, q_scale=0.5, target_returns=(3600.0, 1800.0), **own
    )
