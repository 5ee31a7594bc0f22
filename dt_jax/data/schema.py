"""D4RL's schema: flat arrays with one row per transition, in any file format."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from dt_jax.data.arrays import check_finite
from dt_jax.utils.errors import UserError


class RawData(NamedTuple):
    """The transitions of a dataset in recording order.

    Memory-mapped data (see `dt_jax.data.d4rl`) keeps the file's number width.
    """

    observations: np.ndarray  # [M, S] float32
    actions: np.ndarray  # [M, A] float32, or choices [M] int64 if they are discrete
    rewards: np.ndarray  # [M] float32
    terminals: np.ndarray  # [M] bool: the task ended here
    timeouts: np.ndarray  # [M] bool: the recording ended here


NUMBERS = ("observations", "actions", "rewards")
MATRICES = ("observations", "actions")
KEYS = (*RawData._fields, "episode_ends", "next_observations")


class Column(Protocol):
    """One array of an open file; its numbers are read on request."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the file."""

    @property
    def dtype(self) -> np.dtype:
        """The dtype in the file."""

    @property
    def is_complete(self) -> bool:
        """Whether the file stores as many numbers as the shape announces."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order, in blocks that fit in memory."""

    def memmap(self) -> np.memmap | None:
        """Map the array; None where it is not one uncompressed piece of the file."""


@contextmanager
def corrupt_file_errors(path: Path) -> Iterator[None]:
    """Convert what a library raises for a corrupt file into a UserError.

    A corrupt byte can lead to any exception, also to a seek to a negative position.
    Other errors of the operating system are about the disk and not about the content.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        if code not in (None, errno.EINVAL):
            raise UserError(
                f"{path} cannot be read ({os.strerror(code)}); check its file system, "
                "or copy the file to another one"
            ) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: corrupt, or not an HDF5 or .npz file; download it again or "
            f"convert it ({reason})"
        ) from error


def check_columns(columns: Mapping[str, Column], path: Path) -> None:
    """Check that the required arrays exist, are numeric and have one length.

    Args:
      columns: the file's arrays by name.
      path: the file, for error messages.

    Raises:
      UserError: an array is missing, incomplete, empty, or has a wrong type or shape.
    """
    required = [*NUMBERS, "terminals"]
    if missing := [key for key in required if key not in columns]:
        found = ", ".join(sorted(columns)[:10]) or "no arrays"
        raise UserError(
            f"{path}: {', '.join(missing)} missing; a dataset needs "
            f"{', '.join(required)}, the file contains {found}"
        )
    if "timeouts" in columns:
        required.append("timeouts")
    elif "truncations" in columns:  # Gymnasium's word for it
        raise UserError(f"{path}: rename the array truncations to timeouts")
    for key in required:
        shape, dtype = columns[key].shape, columns[key].dtype
        if dtype.kind not in "biuf":
            raise UserError(f"{path}: {key} has dtype {dtype}, expected numbers")
        rank = 2 if key in MATRICES else 1
        if key == "actions" and len(shape) == 1 and dtype.kind in "biu":
            rank = 1  # discrete
        # d4rl's get_dataset also accepts [M, 1] for [M].
        if len(shape) != rank and not (rank == 1 and shape[1:] == (1,)):
            expected = "[steps, size]" if rank == 2 else "[steps]"
            if key == "actions":
                expected += ", or integers [steps] for discrete actions"
            raise UserError(
                f"{path}: {key} has shape {shape} of {dtype}, expected {expected}"
            )
        if min(shape) <= 0:
            raise UserError(f"{path}: {key} is empty, its shape is {shape}")
    shapes = {key: columns[key].shape for key in required}
    if len({shape[0] for shape in shapes.values()}) > 1:
        listed = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
        raise UserError(f"{path}: the arrays differ in length: {listed}")
    # Unwritten flags are fine: HDF5 reads them as 0, and nothing ended there.
    for key in NUMBERS:
        if not columns[key].is_complete:
            raise UserError(
                f"{path}: {key} announces shape {columns[key].shape}, but fewer or "
                "more numbers are stored; download the file again, or finish recording"
            )


def read_flags(column: Column, name: str) -> np.ndarray:
    """Read bools, or the numbers 0 and 1, as [M] bool.

    Raises:
      UserError: the column contains other numbers.
    """
    flags = []
    for block in column.blocks():
        check_finite(block, name)
        if not np.isin(block, (0, 1)).all():
            raise UserError(
                f"{name} contains {block.min():g} to {block.max():g}, expected 0 or 1"
            )
        flags.append(block.reshape(-1) != 0)
    return np.concatenate(flags)
