"""AntMaze, Q-value regularised Transformer: the datasets of configs/antmaze.py.

  python launch.py --config=configs/qt/antmaze.py:umaze

Published scores: not repeated here, because they are maxima over evaluations.

Hyper-parameters: eta, clip_grad and update_steps are those of the authors' run.sh
(charleshsc/QT), on the play datasets those of the diverse ones; q_scale and q_min,
used by mode=qcs, those of beanie00/QCS's scripts.sh for medium-play.
Rewards are as recorded; the authors have (r - 0.5) · 4 on large-diverse.

Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import q_regularized_dt

BY_DATASET = {
    "umaze": {"eta": 0.05, "clip_grad": 9.0},
    "umaze-diverse": {"eta": 0.01, "clip_grad": 9.0},
    "medium-play": {"eta": 0.01, "clip_grad": 9.0, "update_steps": 100_000},
    "medium-diverse": {"eta": 0.01, "clip_grad": 9.0, "update_steps": 100_000},
    "large-play": {"eta": 0.005, "clip_grad": 9.0, "update_steps": 100_000},
    "large-diverse": {"eta": 0.005, "clip_grad": 9.0, "update_steps": 100_000},
}


def get_config(dataset: str = "umaze"):
    """Return the paper's hyper-parameters for `dataset`, ours for a demo."""
    if dataset.endswith("demo"):
        return q_regularized_dt("antmaze", dataset)
    own = BY_DATASET.get(dataset, {})
    return q_regularized_dt(
        "antmaze",
        dataset,
        iql_tau=0.9,
        q_scale=0.2,
        reward_scale=1.0,
        target_returns=(1.0, 0.5),
        **own,
    )
