"""Demo datasets, collected locally with bundled behaviour policies."""

from dt_jax.datasets.demo.demo import collect_demo, write_d4rl

__all__ = ["collect_demo", "write_d4rl"]
