"""Arrays that JAX's CPU back end uses where they are, instead of copying them."""

import math

import numpy as np

_ALIGNMENT = 64  # bytes; NumPy's own arrays begin at a multiple of 16


def aligned_empty(shape: tuple[int, ...] | int, dtype: type) -> np.ndarray:
    """Return an uninitialised array that starts at a multiple of 64 bytes."""
    count = math.prod(np.atleast_1d(shape).tolist())
    size = count * np.dtype(dtype).itemsize
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)
