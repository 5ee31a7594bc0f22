"""Grid with Q-learning DT, which joins the best parts of random trajectories.

  python launch.py --config=configs/qdt/grid.py

A Decision Transformer on the same data: configs/grid.py. Moves have no random outcomes,
so an expectile near 1 is the value of the best move in the data. Returns are multiples
of 10, to which labels are rounded.
"""

from dt_jax.config import default_config
from dt_jax.config.presets import GRID


def get_config():
    """Return the configuration."""
    return default_config(
        "qdt",
        env_name="grid-demo",
        discount=1.0,
        iql_tau=0.997,
        tau=0.02,
        qf_lr=5e-4,
        vf_lr=5e-4,
        critic_dim=128,
        critic_update_steps=4_000,
        label_rounding=10.0,
        **GRID,
    )
