"""Adroit pen, Q-value regularised Transformer: the datasets of configs/pen.py.

  python launch.py --config=configs/qt/pen.py:human

Published scores: not repeated here, because they are maxima over evaluations.

Hyper-parameters: eta and clip_grad are those of the authors' run.sh (charleshsc/QT),
for expert ours; q_scale and q_min, used by mode=qcs, those of beanie00/QCS's
scripts.sh.

Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import q_regularized_dt

BY_DATASET = {
    "human": {"eta": 0.1, "clip_grad": 9.0},
    "cloned": {"eta": 0.1, "clip_grad": 9.0},
    "expert": {"eta": 0.1, "clip_grad": 9.0},
}


def get_config(dataset: str = "human"):
    """Return the paper's hyper-parameters for `dataset`."""
    own = BY_DATASET.get(dataset, {})
    return q_regularized_dt(
        "pen",
        dataset,
        q_scale=0.01,
        reward_scale=0.001,
        target_returns=(12000.0, 6000.0),
        **own,
    )
