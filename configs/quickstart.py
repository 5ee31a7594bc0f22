"""What `python launch.py` runs: a small model on a dataset that we collect ourselves.

  python launch.py

Score and time: not measured.
"""

from configs import default


def get_config():
    """Return a run that needs no download and shows return-conditioning at work."""
    config = default.for_dataset(
        "halfcheetah-demo",
        embedding_dim=64,
        num_layers=2,
        batch_size=64,
        learning_rate=1e-3,
        update_steps=3_000,
        warmup_steps=300,
        eval_every=1_000,
        eval_episodes=10,
        target_returns=(2600.0, 2100.0, 1600.0, 1300.0, 700.0, 200.0),
    )
    config.name = "quickstart"
    return config
