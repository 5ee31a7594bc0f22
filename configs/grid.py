"""Grid, in which a Decision Transformer has to join more than two trajectories.

  python launch.py --config=configs/grid.py

The data (`dt_jax/envs/tabular.py`) is 100 episodes of random moves; the shortest way
from corner to corner returns 50. configs/qdt/grid.py finds it.
"""

from dt_jax.config import default_config
from dt_jax.config.presets import GRID


def get_config():
    """Return the configuration."""
    return default_config(env_name="grid-demo", **GRID)
