"""Maze2D, Q-value regularised Transformer: the datasets of configs/maze2d.py.

  python launch.py --config=configs/qt/maze2d.py:umaze

Published scores: not repeated here, because they are maxima over evaluations.

Hyper-parameters: the authors' run.sh (charleshsc/QT); q_scale and q_min, of
`--config.mode=qcs`, are ours.

Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import q_regularized_dt

BY_DATASET = {
    "umaze": {"eta": 5.0, "clip_grad": 20.0, "update_steps": 100_000},
    "medium": {"eta": 5.0, "clip_grad": 9.0, "update_steps": 100_000},
    "large": {"eta": 4.0, "clip_grad": 9.0},
}


def get_config(dataset: str = "umaze"):
    """Return the paper's hyper-parameters for `dataset`, ours for a demo."""
    if dataset.endswith("demo"):
        return q_regularized_dt("maze2d", dataset)
    own = BY_DATASET.get(dataset, {})
    return q_regularized_dt(
        "maze2d",
        dataset,
        q_scale=0.2,
        reward_scale=0.1,
        target_returns=(300.0, 150.0),
        **own,
    )
