"""Adroit relocate, Q-value regularised Transformer; datasets of configs/relocate.py.

  python launch.py --config=configs/qt/relocate.py:human

Published scores: not repeated here, because they are maxima over evaluations.

Hyper-parameters: the authors' run.sh (charleshsc/QT), which
lacks this family: eta and clip_grad are ours, as of hammer; q_scale and q_min, of
`--config.mode=qcs`, are ours, as of pen.

Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import q_regularized_dt

BY_DATASET = {
    "human": {"eta": 0.01, "clip_grad": 9.0},
    "cloned": {"eta": 0.01, "clip_grad": 9.0},
    "expert": {"eta": 0.01, "clip_grad": 9.0},
}


def get_config(dataset: str = "human"):
    """Return the paper's hyper-parameters for `dataset`."""
    own = BY_DATASET.get(dataset, {})
    return q_regularized_dt(
        "relocate",
        dataset,
        q_scale=0.01,
        reward_scale=0.001,
        target_returns=(3000.0, 1000.0),
        **own,
    )
