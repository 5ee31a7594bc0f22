"""What every format is read into: the transitions of a dataset, in order."""

from typing import NamedTuple

import numpy as np

BLOCK_ROWS = 4096  # enough for speed, and next to nothing in memory


class RawData(NamedTuple):
    """The transitions of a dataset in the order in which they were recorded."""

    observations: np.ndarray  # [M, S] float32
    actions: np.ndarray  # [M, A] float32
    rewards: np.ndarray  # [M] float32
    terminals: np.ndarray  # [M] bool: the task ended here
    timeouts: np.ndarray  # [M] bool: the recording ended here
