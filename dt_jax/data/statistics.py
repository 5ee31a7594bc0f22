"""Statistics of arrays that may be mapped files, of any width and beyond memory."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dt_jax.data.schema import BLOCK_ROWS


class Columns(NamedTuple):
    """The statistics of each column of an array, all [D] float64."""

    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @property
    def constant(self) -> np.ndarray:
        """Which columns vary by no more than the rounding of float32, [D] bool."""
        return self.std <= 1e-6 * np.maximum(1, np.abs(self.mean))


def column_statistics(array: np.ndarray) -> Columns:
    """Return the statistics of the columns of an array [M, D], read once.

    Means and squares of blocks of rows are merged by equation 1.3 of Chan, Golub and
    LeVeque, Algorithms for computing the sample variance, 1983.
    """
    count, mean, squares = 0, np.zeros(array.shape[1]), np.zeros(array.shape[1])
    low, high = np.full_like(mean, np.inf), np.full_like(mean, -np.inf)
    for block in blocks(array):
        low = np.minimum(low, block.min(0))
        high = np.maximum(high, block.max(0))
        own_mean, total = block.mean(0), count + len(block)
        squares += np.square(block - own_mean).sum(0)
        squares += np.square(own_mean - mean) * (count * len(block) / total)
        mean += (own_mean - mean) * (len(block) / total)
        count = total
    return Columns(low, high, mean, np.sqrt(squares / count))


def blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield some rows at a time, in float64.

    They go through float32, as what is trained on does, so that a wider mapped file has
    the same statistics as in memory.
    """
    for start in range(0, len(array), BLOCK_ROWS):
        block = array[start : start + BLOCK_ROWS]
        yield block.astype(np.float32, copy=False).astype(np.float64)
