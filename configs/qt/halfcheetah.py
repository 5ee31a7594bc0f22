"""HalfCheetah, Q-value regularised Transformer: the datasets of configs/halfcheetah.py.

  python launch.py --config=configs/qt/halfcheetah.py:medium

Published: 89.8 on average over nine locomotion datasets, a maximum over evaluations.
The scores by dataset are not repeated here, because they have the same bias.

Hyper-parameters: eta and clip_grad are those of the authors' run.sh (charleshsc/QT);
q_scale and q_min, used by mode=qcs, those of beanie00/QCS's scripts.sh.

Scores of dt_jax: not measured.
"""

from dt_jax.config.presets import q_regularized_dt

BY_DATASET = {
    "medium": {"eta": 5.0, "clip_grad": 15.0, "seq_len": 5},
    "medium-replay": {"eta": 5.0, "clip_grad": 15.0, "seq_len": 5},
    "medium-expert": {"eta": 0.4, "clip_grad": 15.0, "update_steps": 100_000},
}


def get_config(dataset: str = "medium"):
    """Return the paper's hyper-parameters for `dataset`, ours for a demo."""
    if dataset.endswith("demo"):
        return q_regularized_dt("halfcheetah", dataset)
    own = BY_DATASET.get(dataset, {})
    return q_regularized_dt(
        "halfcheetah",
        dataset,
        q_scale=1.0,
        target_returns=(12000.0, 9000.0, 6000.0),
        **own,
    )
