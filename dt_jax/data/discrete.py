"""Discrete actions: files hold choices or one-hot rows, agents see one-hot rows."""

import numpy as np

from dt_jax.data.arrays import aligned_empty
from dt_jax.data.schema import Column
from dt_jax.utils.errors import UserError

_MOST_CHOICES = 1000  # taken from data; more are continuous actions stored as integers


def is_discrete(column: Column) -> bool:
    """Return whether an array of actions holds choices: integers or bools."""
    return column.dtype.kind in "biu"


def read_choices(column: Column, name: str, num_choices: int | None) -> np.ndarray:
    """Read choices [M] or [M, 1], or one-hot rows [M, N], as choices [M] int64.

    Args:
      column: of actions.
      name: of the column, for error messages.
      num_choices: N of the environment; None: as many as the data has.

    Raises:
      UserError: a row is not a choice, or not one of N.
    """
    if len(column.shape) == 1 or column.shape[1] == 1:
        choices = np.concatenate([block.reshape(-1) for block in column.blocks()])
        return check_choices(choices, name, num_choices)
    if num_choices not in (None, column.shape[1]):
        raise UserError(
            f"{name} has {column.shape[1]} columns, but the environment {num_choices} "
            "choices; set env_name to the environment of the recording"
        )
    found, start = [], 0
    for block in column.blocks():
        bad = ((block != 0) & (block != 1)).any(axis=1) | (block.sum(axis=1) != 1)
        if bad.any():
            raise UserError(
                f"{name}: row {start + bad.argmax()} is not one-hot; discrete actions "
                "(integers, or the environment's) are integers [steps] or one-hot "
                "rows; continuous ones are floats"
            )
        found.append(block.argmax(axis=1))
        start += len(block)
    return np.concatenate(found)


def check_choices(
    choices: np.ndarray, name: str, num_choices: int | None
) -> np.ndarray:
    """Return choices [M] as int64; see `read_choices`."""
    least, most = choices.min(), choices.max()
    limit = num_choices or _MOST_CHOICES
    if (choices != np.floor(choices)).any():
        raise UserError(
            f"{name} are continuous, but those of the environment are {limit} choices: "
            "set env_name to the environment of the recording"
        )
    if not (least >= 0 and most < limit):
        raise UserError(
            f"{name}: choices from {least:g} to {most:g}, expected integers from 0 to "
            f"{limit - 1}" + "; store continuous actions as floats" * (not num_choices)
        )
    return choices.astype(np.int64)


def one_hot(choices: np.ndarray, num_choices: int | None) -> np.ndarray:
    """Return one-hot rows [M, N] float32; N is one more than the largest if None."""
    rows = aligned_empty((len(choices), num_choices or choices.max() + 1), np.float32)
    rows[:] = 0
    rows[np.arange(len(choices)), choices] = 1
    return rows
