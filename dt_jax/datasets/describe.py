"""Text summary of a dataset.

Arrays are read in blocks of rows: they may be memory-mapped and larger than memory.
"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dt_jax.config.from_data import count_too_long, describe_choices, from_data
from dt_jax.data.arrays import ColumnStatistics, column_statistics, float64_blocks
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.registry import EnvSpec, is_d4rl, normalized_score
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets.load import Dataset

_QUARTILES = 0, 0.25, 0.5, 0.75, 1
_LABEL_WIDTH = 14
_MAX_ROWS = 50  # of the table with one row per observation dimension

# Excess over a bound, as a share of the range, that counts as rounding: numbers near 1
# that were once stored as float16 are off by up to half of this, which does not matter
# to a network trained on them.
_ROUNDING = 1e-3

Bound = float | Sequence[float] | np.ndarray


class OutOfRange(NamedTuple):
    """Actions outside the bounds, which no network within the bounds can predict.

    Attributes:
      rows: number of actions with a component outside its bounds.
      value: the component farthest outside; 0 if there is none.
      excess: by how much.
      column: which number of the action it is.
    """

    rows: int
    value: float
    excess: float
    column: int


def out_of_range(actions: np.ndarray, low: Bound, high: Bound) -> OutOfRange:
    """Count the actions [M, A] outside their bounds, each [A] or a scalar."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    rows, value, farthest, column = 0, 0.0, 0.0, 0
    for block in float64_blocks(actions):
        excess = np.maximum(low - block, block - high)
        excess[excess <= _ROUNDING * (high - low)] = 0
        rows += int(excess.any(1).sum())
        if excess.max() > farthest:
            farthest = float(excess.max())
            value = float(block.flat[excess.argmax()])
            column = int(excess.argmax()) % block.shape[1]
    return OutOfRange(rows, value, farthest, column)


def action_range_warning(
    trajectories: Trajectories, spec: EnvSpec | None
) -> str | None:
    """Return a warning about actions outside an environment's bounds, or None."""
    if spec is None:
        return None
    outside = out_of_range(trajectories.actions, *spec.action_bounds)
    if not outside.rows:
        return None
    return (
        f"{outside.rows:,} of {len(trajectories.actions):,} actions are outside "
        f"{_bounds(*spec.action_bounds)}, by up to {_number(outside.excess)}, and the "
        "network cannot predict them; check the units of actions, or clip the actions"
    )


def lengths_summary(trajectories: Trajectories) -> str:
    """Return the number of transitions and the lengths of trajectories in one line."""
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


def unit_warnings(
    trajectories: Trajectories, normalizer: Normalizer, max_action: float
) -> list[str]:
    """Return warnings about numbers whose variation is small in the network's units."""
    lines = []
    # Both: a warm start has its source's, and nearly constant numbers have 1.
    std = np.maximum(trajectories.state_std, normalizer.state_std)
    small = std < 101e-6  # of which 1e-6 was added
    if small.any():
        lines.append(
            f"observation numbers {index_ranges(*small.nonzero())} have a standard "
            "deviation below 1e-4, and the 1e-6 added to it makes them smaller to the "
            "network; use larger units, in the environment too"
        )
    if trajectories.discrete:
        if not trajectories.actions[:, 0].any():
            lines.append(
                "choice 0 never occurs in the actions; choices count from 0: subtract "
                "1 if those of the data count from 1"
            )
        return lines
    least, most, mean, std = column_statistics(trajectories.actions)
    reach = max_action * normalizer.action_scale
    small = (least < most) & (std < 0.02 * 2 * reach)
    if small.any():
        i = int(small.argmax())
        value = most[i] if most[i] - mean[i] > mean[i] - least[i] else least[i]
        low, high = normalizer.action_center[i] + [-reach[i], reach[i]]
        lines.append(
            f"action numbers {index_ranges(*small.nonzero())} have a standard "
            "deviation below 2 % of the range that is mapped to the network's, number "
            f"{i} of {std[i]:.3g} in {low:.3g} to {high:.3g}, with a value of "
            f"{value:.3g}; remove outliers, or narrow the bounds"
        )
    return lines


def constant_numbers(
    trajectories: Trajectories, spec: EnvSpec | None = None
) -> str | None:
    """Return a line that names the observation numbers without scale; None if none."""
    constant, nearly = trajectories.constant, ""
    if not is_d4rl(spec) and (trajectories.nearly_constant > constant).any():
        constant, nearly = trajectories.nearly_constant, "or nearly constant "
    if not constant.any():
        return None
    numbers = index_ranges(np.flatnonzero(constant))
    return f"constant {nearly}observation numbers, which are not scaled: {numbers}"


def describe_dataset(dataset: Dataset, spec: EnvSpec | None) -> str:
    """Return a summary of the data in lines of at most 80 characters.

    Args:
      dataset: the data.
      spec: the environment for scores and action bounds, if any.
    """
    observed = column_statistics(dataset.trajectories.observations)
    sections = [
        _facts(dataset, spec, observed),
        _distributions(dataset.trajectories, spec),
        _observations(observed),
    ]
    return "\n\n".join(sections)


def align_columns(rows: Sequence[Sequence[str]], align: str) -> str:
    """Format rows of cells as aligned columns; `align` has "<" or ">" for each."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = "  ".join(
        f"{{:{side}{width}}}" for side, width in zip(align, widths, strict=True)
    )
    return "\n".join(line.format(*row).rstrip() for row in rows)


def _facts(dataset: Dataset, spec: EnvSpec | None, observed: ColumnStatistics) -> str:
    """Return labelled facts, one per paragraph."""
    trajectories = dataset.trajectories
    rows, count = trajectories.num_transitions, trajectories.num_trajectories
    one_step = int(np.count_nonzero(trajectories.lengths == 1))
    lengths = f"{count:,}; of one step: {_share(one_step, count)}"
    if spec is not None and (too_long := count_too_long(trajectories, spec)):
        lengths += f"; longer than the time limit of {spec.max_episode_steps:,} steps: "
        lengths += f"{_share(too_long, count)}; are timeouts missing?"
    rewarded = int(np.count_nonzero(trajectories.rewards))
    scale = ""
    if spec is not None and spec.ref_min is not None and spec.ref_max is not None:
        scale = f"a return of {_number(spec.ref_min)} scores 0, "
        scale += f"{_number(spec.ref_max)} scores 100"
    actions, bounds = _value_range(column_statistics(trajectories.actions)), ""
    if trajectories.discrete:
        shares = column_statistics(trajectories.actions).mean
        each = ", ".join(f"{i} {_percent(share)}" for i, share in enumerate(shares))
        actions = f"discrete, {_count(len(shares), 'choice')}: {each}"
        if not shares[0]:
            actions += "; do they count from 1? choices count from 0"
    elif spec is not None:
        outside = out_of_range(trajectories.actions, *spec.action_bounds)
        bounds = f"{_share(outside.rows, rows)} outside {_bounds(*spec.action_bounds)}"
        bounds += f", up to {_number(outside.value)}" if outside.rows else ""
    constant = index_ranges(np.flatnonzero(trajectories.constant)) or "none"
    suggested = describe_choices(from_data(trajectories, spec))
    facts = [
        ("source", dataset.source),
        ("sha256", dataset.sha256),
        ("environment", spec.label if spec else "unknown; set it with --env_name"),
        ("", scale),
        ("transitions", f"{rows:,}"),
        ("trajectories", lengths),
        ("dropped tail", _count(trajectories.dropped_tail, "row")),
        ("rewards", f"{_share(rewarded, rows)} nonzero"),
        ("actions", actions),
        ("", bounds),
        ("observations", _value_range(observed)),
        ("", f"constant: {constant}"),
        *[("suggested" if i == 0 else "", line) for i, line in enumerate(suggested)],
    ]
    return "\n".join(
        textwrap.fill(
            text,
            width=80,
            initial_indent=f"{label:{_LABEL_WIDTH}}",
            subsequent_indent=" " * _LABEL_WIDTH,
            break_long_words=False,  # a path
            break_on_hyphens=False,
        )
        for label, text in facts
        if text
    )


def _distributions(trajectories: Trajectories, spec: EnvSpec | None) -> str:
    """Return a table of the distributions of lengths, returns, scores and rewards."""
    returns = trajectories.episode_returns.astype(np.float64)
    groups = [
        ("length", trajectories.lengths, _number),
        ("return", returns, _number),
    ]
    if spec is not None and (scores := normalized_score(spec, returns)) is not None:
        groups.append(("normalised", scores, "{:z.1f}".format))
    rows = [["", "min", "25%", "median", "75%", "max", "mean", "std"]]
    for name, values, text in groups:
        numbers = [*np.quantile(values, _QUARTILES), values.mean(), values.std()]
        rows.append([name, *map(text, numbers)])
    # Quartiles of the rewards would need a sort of all rows of a memory-mapped file.
    rewards = column_statistics(trajectories.rewards[:, np.newaxis])
    low, high, mean, std = (_number(values[0]) for values in rewards)
    rows.append(["reward", low, "", "", "", high, mean, std])
    return align_columns(rows, "<>>>>>>>")


def _observations(observed: ColumnStatistics) -> str:
    """Return a table of each observation dimension, or a summary of many."""
    if len(observed.mean) <= _MAX_ROWS:
        rows = [["observation", "min", "max", "mean", "std"]]
        for i, values in enumerate(zip(*observed, strict=True)):
            rows.append([str(i), *map(_number, values)])
        return align_columns(rows, ">>>>>")
    rows = [["observations", "least", "median", "largest"]]
    for name, column in zip(observed._fields, observed, strict=True):
        rows.append([name, *map(_number, np.quantile(column, (0, 0.5, 1)))])
    return align_columns(rows, "<>>>")


def _value_range(columns: ColumnStatistics) -> str:
    low, high = _number(columns.min.min()), _number(columns.max.max())
    return f"{_count(len(columns.mean), 'number')} from {low} to {high}"


def _bounds(low: Bound, high: Bound) -> str:
    """Format bounds: "the bounds -1 to 1", or their extremes if they differ."""
    if np.ptp(low) == np.ptp(high) == 0:
        return f"the bounds {np.ravel(low)[0]:g} to {np.ravel(high)[0]:g}"
    return f"their bounds between {np.min(low):g} and {np.max(high):g}"


def index_ranges(indices: np.ndarray) -> str:
    """Format increasing integers: "3, 7-12"."""
    breaks = np.flatnonzero(np.diff(indices) > 1) + 1
    return ", ".join(
        f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}"
        for run in np.split(indices, breaks)
        if len(run)
    )


def _number(value: float) -> str:
    """Format a number in about 8 characters at most."""
    size = abs(value)
    if size >= 1e6 or 0 < size < 5e-4:
        return f"{value:.1e}"
    if size >= 1e4 or value == int(value):
        return f"{value:z,.0f}"
    return f"{value:.3f}" if size < 100 else f"{value:,.1f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({_percent(part / whole)})" if part else "none"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
