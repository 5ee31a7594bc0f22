"""The default of `python launch.py`: a small network on a demo dataset.

  python launch.py

For target returns from 400 to 4000, halfcheetah achieves about the target; the
normalised score at the top target is 32 to 34 (3 seeds, docs/algorithms/dt.md).
Training takes 42 to 51 s on 2 cores of an AMD EPYC, after the data is collected.
"""

from dt_jax.config import default_config


def get_config():
    """Return a run that needs no download and shows conditioning on returns."""
    return default_config(
        name="quickstart",
        env_name="halfcheetah-demo",
        embedding_dim=64,
        num_layers=2,
        seq_len=5,
        learning_rate=1e-3,
        update_steps=4_000,
        warmup_steps=300,
        eval_every=2_000,
        eval_episodes=10,
        target_returns=(400.0, 1000.0, 1700.0, 2300.0, 2900.0, 3400.0, 4000.0),
    )
