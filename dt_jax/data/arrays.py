"""Helpers for large arrays, in memory or memory-mapped."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dt_jax.utils.errors import UserError

BLOCK_ROWS = 4096  # rows processed at a time: fast, and little memory
_ALIGNMENT = 64  # bytes; NumPy's own arrays start at a multiple of 16


class ColumnStatistics(NamedTuple):
    """Statistics of each column of an array, all [D] float64."""

    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @property
    def constant(self) -> np.ndarray:
        """Which columns have a single value, [D] bool."""
        return self.min == self.max


def column_statistics(array: np.ndarray) -> ColumnStatistics:
    """Return the column statistics of an array [M, D] in one pass.

    Means and squared deviations of blocks are merged by equation 1.3 of Chan, Golub and
    LeVeque, Algorithms for computing the sample variance, 1983.
    """
    count, mean, squares = 0, np.zeros(array.shape[1]), np.zeros(array.shape[1])
    low, high = np.full_like(mean, np.inf), np.full_like(mean, -np.inf)
    for block in float64_blocks(array):
        low = np.minimum(low, block.min(0))
        high = np.maximum(high, block.max(0))
        block_mean, total = block.mean(0), count + len(block)
        squares += np.square(block - block_mean).sum(0)
        squares += np.square(block_mean - mean) * (count * len(block) / total)
        mean += (block_mean - mean) * (len(block) / total)
        count = total
    return ColumnStatistics(low, high, mean, np.sqrt(squares / count))


def float64_blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield blocks of rows, rounded to float32 and then converted to float64.

    Training uses float32, so a wider memory-mapped file gets the same statistics as the
    same data in memory.
    """
    for start in range(0, len(array), BLOCK_ROWS):
        block = array[start : start + BLOCK_ROWS]
        yield block.astype(np.float32, copy=False).astype(np.float64)


def check_finite(array: np.ndarray, name: str) -> None:
    """Raise a UserError that names the first row that is not finite as float32."""
    for start in range(0, len(array), BLOCK_ROWS):
        block = array[start : start + BLOCK_ROWS]
        with np.errstate(over="ignore"):
            finite = np.isfinite(block.astype(np.float32, copy=False))
        if not finite.all():
            row = start + np.argwhere(~finite)[0, 0]
            raise UserError(
                f"{name} is NaN, infinite or too large for float32, first in row {row}"
            )


def aligned_empty(shape: tuple[int, ...] | int, dtype: type) -> np.ndarray:
    """Return an uninitialised array whose data starts at a multiple of 64 bytes.

    JAX's CPU back end uses such arrays in place instead of copying them.
    """
    count = math.prod(np.atleast_1d(shape).tolist())
    size = count * np.dtype(dtype).itemsize
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)


def machine_memory() -> int:
    """Return the memory of the machine or of the container, in bytes.

    Where the system does not tell, as Windows: more than any machine has.
    """
    limits = [sys.maxsize]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for group in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such group, or "max"
            limits.append(int((Path("/sys/fs/cgroup") / group).read_text()))
    return min(limits)
