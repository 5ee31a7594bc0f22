"""Columns that float32, in which all data is stored, is too coarse for."""

import numpy as np

from dt_jax.utils.errors import UserError

_MOST = 5e-4  # error / std: numbers of float32 are then 1e-3 of the std apart
_NOISE = 5e-7  # smaller ones of observations do not matter: 1e-6 is added to their std
_CONSTANT = 1e-14  # std / value of a column that varies only by float64's own rounding


def is_exact(dtype: np.dtype) -> bool:
    """Return whether float32 has every number of a type."""
    return np.can_cast(dtype, np.float32)


class Rounding:
    """How much rounding to float32 changes each column of an array read in blocks."""

    def __init__(self) -> None:
        self._count = 0
        self._first = self._sum = self._squares = self._error = np.zeros(1)

    def add(self, block: np.ndarray) -> None:
        """Add rows [n, D]."""
        if is_exact(block.dtype) or not len(block):
            return
        wide = block.astype(np.float64, copy=False)
        if not self._count:
            self._first = wide[0].copy()
        # Few and reused arrays: allocating them would take most of the time.
        with np.errstate(over="ignore", invalid="ignore"):  # check_finite reports it
            shifted = wide - self._first  # or large numbers would cancel
            self._sum = self._sum + shifted.sum(0)
            self._squares = self._squares + np.einsum(
                "n...,n...->...", shifted, shifted
            )
            np.subtract(wide, wide.astype(np.float32), out=shifted)
            self._error = np.maximum(self._error, np.abs(shifted, out=shifted).max(0))
        self._count += len(block)

    def check(self, name: str) -> None:
        """Raise a UserError that names the first column that loses its variation."""
        if not self._count:
            return
        mean = self._sum / self._count
        std = np.sqrt(np.maximum(self._squares / self._count - np.square(mean), 0))
        noise = 0 if name.endswith("actions") else _NOISE
        lost = self._error > np.maximum(_MOST * std, noise)
        lost &= std > _CONSTANT * np.abs(self._first)
        if lost.any():
            i = np.argmax(lost)
            raise UserError(
                f"{name}: column {i} is {self._first[i] + mean[i]:.4g} with a standard "
                f"deviation of {std[i]:.2g}, and float32 would round it by up to "
                f"{self._error[i]:.2g}; subtract the offset from the column, in the "
                "environment too"
            )
