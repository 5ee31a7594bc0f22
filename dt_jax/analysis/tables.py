"""The tables of a report, whatever they are then written in."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from dt_jax.analysis.experiments import Experiment
from dt_jax.analysis.published import Spread, published
from dt_jax.analysis.scores import Scores
from dt_jax.analysis.summary import evaluation_rows
from dt_jax.analysis.timing import timing_of
from dt_jax.evaluation.run_evaluator import HOLDOUT_METRIC as HOLDOUT
from dt_jax.utils.errors import printable

NOTHING = "-"


class Table(NamedTuple):
    """Rows of cells; the first column is text, the others are numbers, mostly."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def compared(scores: Sequence[Scores]) -> Table:
    """Lay out each experiment's last score beside CORL's, with means over domains."""
    rows: list[tuple[str, ...]] = []
    for i, each in enumerate(scores):
        theirs = each.theirs.last if each.theirs else None
        rows.append(
            (
                each.experiment.name,
                _spread(each.last),
                _spread(theirs) if theirs else each.foreign,
                _signed(each.difference),
                {True: "yes", False: "no", None: NOTHING}[each.within],
            )
        )
        last = i + 1 == len(scores) or _domain(scores[i + 1]) != _domain(each)
        if last and (mean := _mean_of(_domain(each), scores)):
            rows.append(mean)
    return Table(("data", "ours", "CORL", "diff.", "within"), rows)


def _domain(scores: Scores) -> str:
    return scores.theirs.domain if scores.theirs else ""


def _mean_of(domain: str, scores: Sequence[Scores]) -> tuple[str, ...] | None:
    """Return the row of the means over a domain, if each of its datasets is there."""
    theirs = {name: row for name, row in published().items() if row.domain == domain}
    ours = [each for each in scores if _domain(each) == domain and each.last]
    if not domain or [each.experiment.config.env_name for each in ours] != [*theirs]:
        return None
    mean = sum(each.last.mean for each in ours if each.last) / len(ours)
    corl = sum(row.last.mean for row in theirs.values()) / len(theirs)
    return (
        f"{domain} average",
        f"{mean:.2f}",
        f"{corl:.2f}",
        _signed(round(mean, 2) - round(corl, 2)),
        NOTHING,
    )


def further(scores: Sequence[Scores]) -> Table:
    """Lay out what else is known of each score: intervals, best scores, the paper's."""
    rows = [
        (
            each.experiment.name,
            str(len(each.experiment.seeds)),
            NOTHING if each.target is None else f"{each.target:g}",
            each.interval or NOTHING,
            _spread(each.best),
            _spread(each.theirs.best if each.theirs else None),
            _spread(each.theirs.paper if each.theirs else None, digits=1),
        )
        for each in scores
    ]
    header = ("data", "seeds", "target", "interval", "best", "CORL, best", "paper")
    return Table(header, rows)


def _spread(score: Spread | None, digits: int = 2) -> str:
    if score is None:
        return NOTHING
    if score.std is None:
        return f"{score.mean:.{digits}f}"
    return f"{score.mean:.{digits}f} ± {score.std:.{digits}f}"


def _signed(number: float | None) -> str:
    return NOTHING if number is None else f"{number:+.2f}"


def targets(experiment: Experiment, intervals: bool) -> Table | None:
    """Lay out what was reached at each target return, if episodes were played."""
    if (evaluation := experiment.evaluation) is None:
        return None
    header, *rows = evaluation_rows(evaluation, intervals)
    return Table(header, rows)


def held_out(experiment: Experiment) -> Table | None:
    """Lay out the error on held-out actions, if it was measured."""
    curve = experiment.curve(HOLDOUT)
    if not curve.steps.size:
        return None
    mean, std = curve.values.mean(axis=0), curve.values.std(axis=0)
    several = len(curve.values) > 1
    rows = []
    for what, i in (("last", -1), ("least", int(mean.argmin()))):
        error = f"{mean[i]:.4g} ± {std[i]:.2g}" if several else f"{mean[i]:.4g}"
        rows.append((what, error, f"{curve.steps[i]:,}"))
    return Table(("squared error of held-out actions", "", "after updates"), rows)


def timings(experiments: Sequence[Experiment]) -> Table:
    """Lay out how long each run took, and on what."""
    rows = []
    for run in (run for each in experiments for run in each.runs):
        timing = timing_of(run)
        rows.append(
            (
                printable(str(run.workdir)),
                ", ".join(map(str, run.seeds)),
                f"{timing.updates:,}",
                NOTHING if timing.rate is None else f"{timing.rate:.3g}",
                _seconds(timing.seconds),
                NOTHING if timing.evaluating is None else _seconds(timing.evaluating),
                timing.made_with,
            )
        )
    header = ("run", "seeds", "updates", "updates/s", "updating", "evaluating", "on")
    return Table(header, rows)


def _seconds(seconds: float) -> str:
    """Write a duration: "48 s", "12 min" or "3.2 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def markdown(table: Table) -> str:
    """Return a table in Markdown, its columns in line."""
    cells = [[plain(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = [
        f"{'-' * width}" if i == 0 else f"{'-' * (width - 1)}:"
        for i, width in enumerate(widths)
    ]
    lines = [cells[0], rule, *cells[1:]]
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in lines
    )


def plain(cell: str) -> str:
    """Return text that Markdown takes as it is."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", cell)
