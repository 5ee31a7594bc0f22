"""AntMaze, Decision ConvFormer: the datasets of configs/antmaze.py.

  python launch.py --config=configs/convformer/antmaze.py:umaze

Scores of dt_jax on D4RL's datasets: not measured.

Hyper-parameters and targets: those of the authors' code
(beanie00/Decision-ConvFormer), of the demos ours.
"""

from dt_jax.config.presets import convformer

TARGETS = (1.0, 10.0, 100.0, 1000.0, 100000.0)


def get_config(dataset: str = "umaze"):
    """Return the configuration for `dataset`."""
    return convformer("antmaze", dataset, TARGETS)
