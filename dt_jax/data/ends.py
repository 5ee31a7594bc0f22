"""Where the episodes of a file end."""

import warnings
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from dt_jax.data.schema import Column, read_flags
from dt_jax.utils.errors import UserError


def read_timeouts(
    columns: Mapping[str, Column],
    terminals: np.ndarray,
    observations: np.ndarray,
    path: Path,
    episode_len: int | None,
) -> np.ndarray:
    """Return where recording ended, [M] bool.

    Args:
      columns: the file's arrays. `timeouts` takes precedence; otherwise `episode_ends`
        [K] holds, for each episode, the row after its last. An episode also ends where
        `next_observations` is not the observation of the following row.
      terminals: [M] bool. If the last row is a terminal, they may mark every end.
      observations: [M, S].
      path: the file, for error messages.
      episode_len: if no array marks the ends, the maximum length of an episode.

    Raises:
      UserError: nothing marks the ends, or they are invalid or contradict each other.
    """
    cuts = _read_cuts(columns, observations)
    if "timeouts" in columns:
        timeouts = read_flags(columns["timeouts"], f"{path}: timeouts")
        return timeouts | _unmarked(cuts, terminals, timeouts, "timeouts", path)
    timeouts = np.zeros_like(terminals)
    if "episode_ends" in columns:
        timeouts[_read_ends(columns["episode_ends"], terminals | cuts, path) - 1] = True
        return timeouts | _unmarked(cuts, terminals, timeouts, "episode_ends", path)
    unmarked = _unmarked(cuts, terminals, timeouts, "", path)
    if unmarked.any():
        return unmarked
    bounds = np.concatenate([[0], np.flatnonzero(terminals) + 1, [len(terminals)]])
    if terminals[-1] and (episode_len is None or np.diff(bounds).max() <= episode_len):
        return timeouts
    if episode_len is None:
        raise UserError(
            f"{path}: timeouts and episode_ends missing; add one of them, or set "
            "episode_len to the number of steps after which episodes are cut off"
        )
    warnings.warn(
        f"{path}: timeouts and episode_ends missing; episodes are assumed to end after "
        f"{episode_len} steps (episode_len) or at a terminal",
        stacklevel=1,
    )
    for start, end in pairwise(bounds):
        timeouts[start + episode_len - 1 : end : episode_len] = True
    return timeouts


def _read_cuts(columns: Mapping[str, Column], observations: np.ndarray) -> np.ndarray:
    """Return which rows' `next_observations` differ from the next row's observation.

    In float32, [M] bool; False in the last row, and without comparable numbers.
    """
    cuts, start = np.zeros(len(observations), bool), 0
    column = columns.get("next_observations")
    if (
        column is None
        or column.shape != observations.shape
        or column.dtype.kind not in "biuf"
        or not column.is_complete
    ):
        return cuts
    for block in column.blocks():
        following = observations[start + 1 : start + 1 + len(block)]
        with np.errstate(over="ignore", invalid="ignore"):
            expected = block[: len(following)].astype(np.float32)
        differ = expected != following.astype(np.float32)
        cuts[start : start + len(following)] = differ.any(1)
        start += len(block)
    return cuts


def _unmarked(
    cuts: np.ndarray, terminals: np.ndarray, timeouts: np.ndarray, name: str, path: Path
) -> np.ndarray:
    """Return the cuts that are not marked as ends by the array called `name`, [M]."""
    unmarked = cuts & ~terminals & ~timeouts
    count, rows = np.count_nonzero(unmarked), len(cuts)
    if not count:
        return unmarked
    differ = f"{path}: in {count} rows that do not end an episode, next_observations "
    differ += "differs from the next row's observation"
    if count > rows / 2:
        warnings.warn(
            f"{differ}: it is ignored; rows must be in the order of recording",
            stacklevel=1,
        )
        return np.zeros_like(cuts)
    if (timeouts & ~terminals & ~cuts)[:-1].any():
        raise UserError(
            f"{differ}, and in rows that {name} marks it does not; correct {name}, or "
            "remove it, so that episodes end where they differ"
        )
    warnings.warn(f"{differ}: episodes are cut there", stacklevel=1)
    return unmarked


def _read_ends(column: Column, marked: np.ndarray, path: Path) -> np.ndarray:
    """Read `episode_ends`; `marked` [M] bool are last rows by other arrays."""
    ends, rows = np.zeros(0, np.int64), len(marked)
    if column.dtype.kind in "iu" and len(column.shape) == 1 and column.shape[0] <= rows:
        ends = np.concatenate([ends, *column.blocks()]).astype(np.int64)
    if not len(ends) or (np.diff(ends, prepend=0) <= 0).any() or ends[-1] > rows:
        raise UserError(
            f"{path}: episode_ends must be increasing integers from 1 to {rows}, the "
            "row after each episode's last"
        )
    # Last rows instead: they are marked as ends, or one row seems to be left over.
    before, at = marked[ends - 1].sum(), marked[ends[ends < rows]].sum()
    if at > before or (at == before and ends[-1] == rows - 1):
        raise UserError(
            f"{path}: episode_ends, up to {ends[-1]} in {rows} rows, seem to be each "
            "episode's last row, but must be the row after it; add 1 to each, or "
            "remove a last row that belongs to no episode"
        )
    return ends
