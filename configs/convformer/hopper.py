"""Hopper, Decision ConvFormer: three D4RL datasets and a demo (`demo`).

  python launch.py --config=configs/convformer/hopper.py:medium

Published (Kim et al., 2024): about 82 on average over nine locomotion datasets. Scores
of dt_jax on these datasets: not measured.

Hyper-parameters and targets: those of the authors' code
(beanie00/Decision-ConvFormer), of `demo` ours.
"""

from dt_jax.config.presets import convformer

TARGETS = (3600.0, 7200.0, 36000.0, 72000.0)


def get_config(dataset: str = "medium"):
    """Return the configuration for `dataset`."""
    return convformer("hopper", dataset, TARGETS)
