"""D4RL's schema: flat arrays, one row a transition, in whatever file they lie."""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from dt_jax.data.aligned import aligned_empty
from dt_jax.utils.errors import UserError

BLOCK_ROWS = 4096  # enough for speed, and next to nothing in memory
_BLOCK_BYTES = 1 << 26  # fewer rows, where they are this wide


class RawData(NamedTuple):
    """The transitions of a dataset in the order in which they were recorded.

    Mapped data (see `dt_jax.data.d4rl`) keeps the numbers' width in the file.
    """

    observations: np.ndarray  # [M, S] float32
    actions: np.ndarray  # [M, A] float32
    rewards: np.ndarray  # [M] float32
    terminals: np.ndarray  # [M] bool: the task ended here
    timeouts: np.ndarray  # [M] bool: the recording ended here


class Column(Protocol):
    """An array in a file, of which nothing is read before it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As in the file."""

    @property
    def dtype(self) -> np.dtype:
        """As in the file."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order, so many at a time as suits the file."""

    def check_whole(self, gaps: bool) -> None:
        """Raise a UserError unless the file holds what it announces.

        Args:
          gaps: rows may have been left out, where the format knows such; they are 0.
        """

    def mapped(self) -> np.ndarray | None:
        """Return the file's own bytes as an array, where they are one."""


NUMBERS = ("observations", "actions", "rewards")
FLAGS = ("terminals", "timeouts")
STATES = ("infos/qpos", "infos/qvel")
_MATRICES = ("observations", "actions", *STATES)  # others have one number a row


def check(
    columns: Mapping[str, Column], keys: tuple[str, ...], path: Path, what: str
) -> None:
    """Raise a UserError unless `keys` are there, of numbers and of one length."""
    if missing := [key for key in keys if key not in columns]:
        there = ", ".join(sorted(columns)[:10]) or "nothing"
        raise UserError(
            f"{path} lacks {', '.join(missing)}; {what} needs {', '.join(keys)}, and "
            f"it has {there}"
        )
    for key in keys:
        if (dtype := columns[key].dtype).kind not in "biuf":
            raise UserError(f"{path}: {key} holds {dtype}, numbers are needed")
        _check_shape(key, columns[key].shape, path)
    lengths = {key: columns[key].shape[0] for key in keys}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise UserError(f"{path}: the arrays differ in length: {told}")
    for key in keys:
        columns[key].check_whole(gaps=key in FLAGS)  # 0 where nothing ended


def _check_shape(key: str, shape: tuple[int, ...], path: Path) -> None:
    rank = 2 if key in _MATRICES else 1
    # Like d4rl's get_dataset, take a single column [M, 1] for [M].
    column = rank == 1 and len(shape) == 2 and shape[1] == 1
    if len(shape) != rank and not column:
        needed = "[steps, size]" if rank == 2 else "[steps]"
        raise UserError(f"{path}: {key} has shape {shape}; {needed} is needed")
    if 0 in shape:
        raise UserError(f"{path}: {key} is empty, its shape is {shape}")


def rows_at_once(column: Column) -> int:
    """Return how many rows a block is to have."""
    row_bytes = math.prod(column.shape[1:]) * column.dtype.itemsize
    return max(1, min(BLOCK_ROWS, _BLOCK_BYTES // row_bytes))


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what a library raises over a damaged file into the one line about it.

    That may be anything: each damaged byte is taken for something else.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} is no HDF5 or .npz file, or is damaged; get it again, or write it "
            f"as one of these ({why})"
        ) from None


def read(column: Column, dtype: type[np.floating]) -> np.ndarray:
    """Convert while reading: a wider file never stands whole in memory."""
    array = aligned_empty(column.shape, dtype)
    start = 0
    for block in column.blocks():
        with np.errstate(over="ignore"):  # found when the numbers are checked
            array[start : start + len(block)] = block
        start += len(block)
    return array


def read_timeouts(
    columns: Mapping[str, Column],
    terminals: np.ndarray,
    path: Path,
    episode_len: int | None,
) -> np.ndarray:
    """Return where recording ended, [M] bool, as the file says in one of three ways.

    Args:
      columns: of the file. `timeouts` wins; else `episode_ends` [K] is, for each
        episode, the row after its last.
      terminals: [M] bool.
      path: the file, for error lines.
      episode_len: without either, no episode is longer than this.

    Raises:
      UserError: none of the three is there, or `episode_ends` are no such rows.
    """
    if "timeouts" in columns:
        return read_flags(columns["timeouts"], f"{path}: timeouts")
    rows = len(terminals)
    if "episode_ends" in columns:
        ends = _read_ends(columns["episode_ends"], rows, path)
        timeouts = np.zeros(rows, bool)
        timeouts[ends - 1] = True
        return timeouts
    if episode_len is None:
        raise UserError(
            f"{path} lacks timeouts and episode_ends: add one of them, or give "
            "episode_len, after how many steps an episode is cut off"
        )
    if episode_len > rows and not terminals.any():
        raise UserError(
            f"{path} lacks timeouts and episode_ends, and episode_len={episode_len} is "
            f"more than its {rows} rows: add one of them, or give the right length"
        )
    warnings.warn(
        f"{path} lacks timeouts and episode_ends: every episode is taken to end after "
        f"{episode_len} steps (episode_len), if no terminal comes before",
        stacklevel=1,
    )
    timeouts = np.zeros(rows, bool)
    ends = np.flatnonzero(terminals) + 1
    for start, end in pairwise(np.concatenate([[0], ends, [rows]])):
        timeouts[start + episode_len - 1 : end : episode_len] = True
    return timeouts


def _read_ends(column: Column, rows: int, path: Path) -> np.ndarray:
    ends = np.zeros(0, np.int64)
    if column.dtype.kind in "iu" and len(column.shape) == 1 and column.shape[0] <= rows:
        column.check_whole(gaps=False)
        ends = np.concatenate([ends, *column.blocks()])
    if not len(ends) or (np.diff(ends, prepend=0) <= 0).any() or ends[-1] > rows:
        raise UserError(
            f"{path}: episode_ends must be growing integers from 1 to {rows}, the row "
            "after each episode's last"
        )
    return ends.astype(np.int64)


def read_flags(column: Column, name: str) -> np.ndarray:
    """Return [M] bool, from bools or from 0 and 1.

    Raises:
      UserError: other numbers are among them.
    """
    flags = []
    for block in column.blocks():
        check_finite(block, name)
        if not np.isin(block, (0, 1)).all():
            raise UserError(
                f"{name} has {block.min():g} to {block.max():g}, not 0 or 1"
            )
        flags.append(block.reshape(-1) != 0)
    return np.concatenate(flags)


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


def size_in_memory(columns: Mapping[str, Column]) -> int:
    """Return the bytes that the transitions take as float32, returns included."""
    numbers = sum(math.prod(columns[key].shape) for key in NUMBERS)
    return 4 * (numbers + columns["rewards"].shape[0])
