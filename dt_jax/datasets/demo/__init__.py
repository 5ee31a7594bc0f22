"""Demo datasets in D4RL's schema, collected locally by behaviour policies."""

from dt_jax.datasets.demo.demo import collect_demo
from dt_jax.datasets.demo.episodes import Actor, Episode, run_episodes, write_d4rl

__all__ = ["Actor", "Episode", "collect_demo", "run_episodes", "write_d4rl"]
