"""What there is to say about a dataset before anything is trained on it, in text.

Arrays are read in blocks of rows: they may be mapped files, larger than memory.
"""

import textwrap
from collections.abc import Sequence
from decimal import ROUND_CEILING, Context
from typing import NamedTuple

import numpy as np

from dt_jax.config.from_data import describe_choices, from_data
from dt_jax.data.registry import EnvSpec, normalized_score
from dt_jax.data.statistics import Columns, blocks, column_statistics
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets.load import Dataset

_QUARTILES = 0, 0.25, 0.5, 0.75, 1
_LABEL = 14  # characters
_MOST_ROWS = 50  # of a table with a row for each observed number

# How far beyond a bound is rounding, as a share of the range: numbers near 1 that were
# once kept as float16 are off by up to half of this, and no network trained on them
# would notice.
_ROUNDING = 1e-3

Bound = float | Sequence[float] | np.ndarray


class OutOfRange(NamedTuple):
    """The actions that no network within the bounds can give.

    Attributes:
      rows: how many have a number outside its bounds.
      value: the number farthest outside; 0 if there is none.
      excess: how far that is.
    """

    rows: int
    value: float
    excess: float


def out_of_range(actions: np.ndarray, low: Bound, high: Bound) -> OutOfRange:
    """Count the actions [M, A] outside their bounds, [A] or one number for all."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    rows, value, farthest = 0, 0.0, 0.0
    for block in blocks(actions):
        excess = np.maximum(low - block, block - high)
        excess[excess <= _ROUNDING * (high - low)] = 0
        rows += int(excess.any(1).sum())
        if excess.max() > farthest:
            farthest = float(excess.max())
            value = float(block.flat[excess.argmax()])
    return OutOfRange(rows, value, farthest)


def out_of_range_line(
    trajectories: Trajectories, spec: EnvSpec | None, max_action: float
) -> str | None:
    """Return the warning about actions outside their bounds, if there are any.

    Args:
      trajectories: the data.
      spec: the environment, whose bounds count.
      max_action: in the place of bounds, where `spec` is None.
    """
    bounds = (spec.action_low, spec.action_high) if spec else (-max_action, max_action)
    rows, value, excess = out_of_range(trajectories.actions, *bounds)
    if not rows:
        return None
    cure = "check the units of actions" if spec else f"give {_covering(value)}"
    return (
        f"{rows:,} of {len(trajectories.actions):,} actions lie outside "
        f"{_range(*bounds)}, the farthest by {_number(excess)}: the network can't "
        f"give them; {cure}, or clip them"
    )


def lengths_line(trajectories: Trajectories) -> str:
    """Return how much there is and in pieces of what length, in one line."""
    lengths = trajectories.lengths
    text = f"{trajectories.num_transitions:,} transitions in "
    if len(lengths) == 1:
        return f"{text}one trajectory"
    text += f"{len(lengths):,} trajectories of "
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest == longest:
        return f"{text}{_count(longest, 'step')} each"
    text += f"{shortest:,} to {longest:,} steps (median {_number(np.median(lengths))}"
    if shortest == 1:
        text += f"; {_percent((lengths == 1).mean())} have one step"
    return f"{text})"


def describe(dataset: Dataset, spec: EnvSpec | None) -> str:
    """Return lines of at most 80 characters about the data, and about its use.

    Args:
      dataset: what a file was read into.
      spec: the environment that it is scored in; its sizes are the data's. With None
        there are no scores, and actions are held against -1 and 1.
    """
    observed = column_statistics(dataset.trajectories.observations)
    wide = len(observed.mean) > _MOST_ROWS
    return "\n\n".join(
        [
            _facts(dataset, spec, observed),
            _spread(dataset.trajectories, spec),
            _summarised(observed) if wide else _each(observed),
        ]
    )


def aligned(rows: Sequence[Sequence[str]], align: str) -> str:
    """Return rows of cells as lines of columns; `align` has "<" or ">" for each."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = "  ".join(
        f"{{:{side}{width}}}" for side, width in zip(align, widths, strict=True)
    )
    return "\n".join(line.format(*row).rstrip() for row in rows)


def _facts(dataset: Dataset, spec: EnvSpec | None, observed: Columns) -> str:
    """Lay out what is one number or a few."""
    trajectories = dataset.trajectories
    rows, count = trajectories.num_transitions, trajectories.num_trajectories
    one_step = int(np.count_nonzero(trajectories.lengths == 1))
    suggested = describe_choices(from_data(trajectories, spec))
    rewarded = int(np.count_nonzero(trajectories.rewards))
    facts = [
        ("source", dataset.source),
        ("sha256", dataset.sha256),
        ("environment", spec.label if spec else "not known; --env_name names it"),
        ("", _scale(spec)),
        ("transitions", f"{rows:,}"),
        ("trajectories", f"{count:,}; of one step: {_share(one_step, count)}"),
        ("dropped tail", _count(trajectories.dropped_tail, "row")),
        ("rewards", f"{_share(rewarded, rows)} other than zero"),
        ("actions", _span(column_statistics(trajectories.actions))),
        ("", _outside(trajectories, spec)),
        ("observations", _span(observed)),
        ("", f"constant: {_runs(np.flatnonzero(observed.constant)) or 'none'}"),
        *[("suggested" if i == 0 else "", line) for i, line in enumerate(suggested)],
    ]
    return "\n".join(
        textwrap.fill(
            text,
            width=80,
            initial_indent=f"{label:{_LABEL}}",
            subsequent_indent=" " * _LABEL,
            break_long_words=False,  # a path
            break_on_hyphens=False,
        )
        for label, text in facts
        if text
    )


def _scale(spec: EnvSpec | None) -> str:
    if spec is None or spec.ref_min is None or spec.ref_max is None:
        return ""
    zero, hundred = _number(spec.ref_min), _number(spec.ref_max)
    return f"a return of {zero} scores 0, {hundred} scores 100"


def _outside(trajectories: Trajectories, spec: EnvSpec | None) -> str:
    low, high = (spec.action_low, spec.action_high) if spec else (-1.0, 1.0)
    outside = out_of_range(trajectories.actions, low, high)
    text = f"{_share(outside.rows, len(trajectories.actions))} outside"
    text = f"{text} {_range(low, high)}"
    return f"{text}, as far as {_number(outside.value)}" if outside.rows else text


def _spread(trajectories: Trajectories, spec: EnvSpec | None) -> str:
    """Lay out how lengths, returns and rewards are distributed."""
    returns = trajectories.episode_returns.astype(np.float64)
    groups = [
        ("length", trajectories.lengths, _number),
        ("return", returns, _number),
    ]
    if spec is not None and (scores := normalized_score(spec, returns)) is not None:
        groups.append(("normalised", scores, "{:z.1f}".format))
    rows: list[tuple[str, ...]] = [
        ("", "min", "25%", "median", "75%", "max", "mean", "std")
    ]
    for name, values, text in groups:
        numbers = [*np.quantile(values, _QUARTILES), values.mean(), values.std()]
        rows.append((name, *map(text, numbers)))
    # Of as many rewards as a mapped file has, quartiles would take a sort.
    low, high, mean, std = (
        _number(column[0])
        for column in column_statistics(trajectories.rewards[:, np.newaxis])
    )
    rows.append(("reward", low, "", "", "", high, mean, std))
    return aligned(rows, "<>>>>>>>")


def _each(observed: Columns) -> str:
    """Lay out a row for each observed number."""
    rows: list[tuple[str, ...]] = [("observation", "min", "max", "mean", "std")]
    for number, values in enumerate(zip(*observed, strict=True)):
        rows.append((str(number), *map(_number, values)))
    return aligned(rows, ">>>>>")


def _summarised(observed: Columns) -> str:
    """Lay out what the statistics of many observed numbers lie between."""
    rows: list[tuple[str, ...]] = [("observations", "least", "median", "largest")]
    for name, values in zip(observed._fields, observed, strict=True):
        rows.append((name, *map(_number, np.quantile(values, (0, 0.5, 1)))))
    return aligned(rows, "<>>>")


def _span(columns: Columns) -> str:
    low, high = columns.min.min(), columns.max.max()
    size = len(columns.mean)
    return f"{_count(size, 'number')} from {_number(low)} to {_number(high)}"


def _range(low: Bound, high: Bound) -> str:
    """Name bounds: "the bounds -1 to 1", or if they differ, what they lie between."""
    if np.ptp(low) == np.ptp(high) == 0:
        return f"the bounds {np.ravel(low)[0]:g} to {np.ravel(high)[0]:g}"
    return f"their bounds between {np.min(low):g} and {np.max(high):g}"


def _runs(numbers: np.ndarray) -> str:
    """Name whole numbers in ascending order: "3, 7-12"."""
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    return ", ".join(
        f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}"
        for run in np.split(numbers, breaks)
        if len(run)
    )


def _number(value: float) -> str:
    """Write a number in about 8 characters at most, as plainly as it can be read."""
    size = abs(value)
    if size >= 1e6 or 0 < size < 5e-4:
        return f"{value:.1e}"
    if size >= 1e4 or value == int(value):
        return f"{value:z,.0f}"
    return f"{value:.3f}" if size < 100 else f"{value:,.1f}"


def _covering(action: float) -> str:
    """Write the least max_action of two digits that is not below `action`."""
    # Six digits first: 1.1 in float32 is a little more than 1.1.
    up = Context(prec=2, rounding=ROUND_CEILING).create_decimal(f"{abs(action):.6g}")
    return f"max_action={float(up):g}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({_percent(part / whole)})" if part else "none"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
