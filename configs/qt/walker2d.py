"""Walker2d, Q-value regularised Transformer: the datasets of configs/walker2d.py.

  python launch.py --config=configs/qt/walker2d.py:medium

Published: 89.8 on average over nine locomotion datasets, a maximum over evaluations.
The scores by dataset are not repeated here, because they have the same bias.
One independent run on medium-replay: best evaluation 96.2, mean of the last 22 90.0,
last 81.1 (CORL's Decision Transformer: 59.9).

Hyper-parameters: eta and clip_grad are those of the authors' run.sh (charleshsc/QT);
q_scale and q_min, used by mode=qcs, those of beanie00/QCS's scripts.sh.

Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import q_regularized_dt

BY_DATASET = {
    "medium": {"eta": 2.0, "clip_grad": 5.0},
    "medium-replay": {"eta": 2.0, "clip_grad": 5.0},
    "medium-expert": {"eta": 2.0, "clip_grad": 5.0, "q_min": 10.0},
}


def get_config(dataset: str = "medium"):
    """Return the paper's hyper-parameters for `dataset`, ours for a demo."""
    if dataset.endswith("demo"):
        return q_regularized_dt("walker2d", dataset)
    own = BY_DATASET.get(dataset, {})
    return q_regularized_dt(
        "walker2d", dataset, q_scale=1.0, target_returns=(5000.0, 4000.0, 2500.0), **own
    )
