"""Tables of evaluations and reports, for terminals, Markdown and HTML."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from dt_jax.agents import agent_class
from dt_jax.analysis.experiments import Experiment
from dt_jax.analysis.published import PUBLISHED, Spread
from dt_jax.analysis.scores import Scores
from dt_jax.runs.aggregate import interquartile_mean
from dt_jax.runs.evaluations import Evaluation
from dt_jax.runs.folder import RunFolder, read_run
from dt_jax.utils.errors import printable

EMPTY = "-"


@dataclass(frozen=True)
class Table:
    """A table of text cells; all columns except the first are right-aligned.

    Attributes:
      header: the names of the columns.
      rows: one cell per column.
      title: shown above the table on a terminal; "" for none.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def rich(self) -> RenderableType:
        """Return the title and the table for `rich.console.Console.print`."""
        table = RichTable(
            box=box.SIMPLE_HEAD,
            show_edge=False,  # otherwise CORL's dataset names do not fit 80 columns
            pad_edge=False,
            collapse_padding=True,
        )
        for i, name in enumerate(self.header):
            table.add_column(name, justify="right" if i else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row))
        # Not the title of the RichTable, which would wrap at the table's width.
        return Group(Text(self.title, style="bold"), table) if self.title else table

    def markdown(self) -> str:
        """Return the table in Markdown."""
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        lines = [self.header, rule, *self.rows]
        return "\n".join(
            f"| {' | '.join(map(escape_markdown, line))} |" for line in lines
        )


def escape_markdown(text: str) -> str:
    """Escape the characters with a meaning in Markdown."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", text)


def evaluation_table(
    evaluation: Evaluation, title: str = "", decimals: int | None = None
) -> Table:
    """Return achieved returns and scores, one row per target return.

    ± is the standard error over episodes, with several seeds that over the means of
    the seeds; a further column then has the interquartile mean over seeds with its 95%
    bootstrap interval.

    Args:
      evaluation: of one seed or several.
      title: of the table.
      decimals: of the returns; None: by their size.
    """
    decimals = _decimals(evaluation) if decimals is None else decimals
    scores = evaluation.normalized_scores
    *seeds, _, episodes = evaluation.returns.shape
    header = ["target", "return"]
    if scores is not None:
        header.append("normalised score")
    if seeds:
        unit = "return" if scores is None else "score"
        header.append(f"IQM of the {unit}")
    header += ["length", "episodes"]
    rows = []
    for k, target in enumerate(evaluation.target_returns):
        values, digits = evaluation.returns[..., k, :], decimals
        row = [_target(target), _with_error(values, digits)]
        if scores is not None:
            values, digits = scores[..., k, :], 1
            row.append(_with_error(values, digits))
        if seeds:
            iqm, low, high = interquartile_mean(values.mean(axis=-1))
            row.append(f"{iqm:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
        row.append(f"{evaluation.lengths[..., k, :].mean():.0f}")
        row.append(" x ".join(map(str, [*seeds, episodes])))
        rows.append(row)
    return Table(header, rows, title)


def _decimals(evaluation: Evaluation) -> int:
    """Return the decimals of all returns of an evaluation, more if they are small."""
    return 3 if np.abs(evaluation.returns.mean(axis=-1)).max() < 10 else 1


def _target(target: float | None) -> str:
    """Return a target return as text; NaN stands for an agent without them."""
    return EMPTY if target is None or np.isnan(target) else f"{target:g}"


def _with_error(values: np.ndarray, digits: int) -> str:
    """Return mean ± standard error of episodes [E], or of seeds from [S, E]."""
    values = values.mean(axis=-1) if values.ndim == 2 else values
    if len(values) == 1:
        return f"{values.mean():.{digits}f}"
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def score_table(scores: Sequence[Scores]) -> Table:
    """Return each experiment's last score beside CORL's, with averages over domains."""
    rows: list[Sequence[str]] = []
    for i, each in enumerate(scores):
        reference = each.published
        rows.append(
            (
                each.experiment.name,
                _spread(each.last),
                _spread(reference.last) if reference else each.not_comparable,
                _signed(each.difference),
                {True: "yes", False: "no", None: EMPTY}[each.within],
            )
        )
        end = i + 1 == len(scores) or _domain(scores[i + 1]) != _domain(each)
        if end and (average := _domain_average(_domain(each), scores)):
            rows.append(average)
    return Table(("data", "ours", "CORL", "diff.", "within"), rows, "normalised scores")


def returns_table(experiments: Sequence[Experiment]) -> Table:
    """Return the last evaluation of each experiment, one row per target return."""
    found = [(each, each.evaluation) for each in experiments if each.evaluation]
    decimals = max((_decimals(evaluation) for _, evaluation in found), default=1)
    rows = [
        (each.name, *row[:2], str(len(each.seeds)))
        for each, evaluation in found
        for row in evaluation_table(evaluation, decimals=decimals).rows
    ]
    return Table(("data", "target", "return", "seeds"), rows, "returns")


def _domain(scores: Scores) -> str:
    return scores.published.domain if scores.published else ""


def _domain_average(domain: str, scores: Sequence[Scores]) -> Sequence[str] | None:
    """Return the average over a domain; None unless each dataset occurs once."""
    reference = {name: row for name, row in PUBLISHED.items() if row.domain == domain}
    found = [each for each in scores if _domain(each) == domain and each.last]
    names = [each.experiment.config.env_name for each in found]
    if not domain or names != list(reference):
        return None
    ours = round(np.mean([each.last.mean for each in found if each.last]), 2)
    corl = round(np.mean([row.last.mean for row in reference.values()]), 2)
    difference = _signed(float(ours - corl))
    return f"{domain} average", f"{ours:.2f}", f"{corl:.2f}", difference, EMPTY


def interval_table(scores: Sequence[Scores]) -> Table:
    """Return confidence intervals, best scores and the paper's scores."""
    rows = [
        (
            each.experiment.name,
            str(len(each.experiment.seeds)),
            _target(each.target),
            each.interval or EMPTY,
            _spread(each.best),
            _spread(each.published and each.published.best),
            _spread(each.published and each.published.paper, digits=1),
        )
        for each in scores
    ]
    header = ("data", "seeds", "target", "interval", "best", "CORL, best", "paper")
    return Table(header, rows)


def _spread(score: Spread | None, digits: int = 2) -> str:
    return score.text(digits) if score else EMPTY


def _signed(number: float | None) -> str:
    return EMPTY if number is None else f"{number:+.2f}"


def holdout_table(experiment: Experiment) -> Table | None:
    """Return the last and the lowest held-out error; None if it was not evaluated."""
    measured, curve = experiment.holdout
    if not curve.steps.size:
        return None
    mean, std = curve.values.mean(axis=0), curve.values.std(axis=0)
    several = len(curve.values) > 1
    rows = []
    for name, i in (("last", -1), ("lowest", int(mean.argmin()))):
        error = f"{mean[i]:.4g} ± {std[i]:.2g}" if several else f"{mean[i]:.4g}"
        rows.append((name, error, f"{curve.steps[i]:,}"))
    header = (f"held-out {measured}", "mean", "updates")
    return Table(header, rows, experiment.name)


def timing_table(experiments: Sequence[Experiment]) -> Table:
    """Return the duration and the hardware and software of each run."""
    runs = [run for experiment in experiments for run in experiment.runs]
    rows = [_timing(each) for run in runs for each in (*_stages(run), run)]
    header = (
        "run",
        "seeds",
        "updates",
        "updates/s",
        "training",
        "evaluation",
        "hardware, versions",
    )
    return Table(header, rows)


def _stages(run: RunFolder) -> list[RunFolder]:
    """Return the runs that a run began with."""
    names = agent_class(run.config.agent).stages(run.config)
    folders = [run.workdir / name for name in names]
    return [read_run(x) for x in folders if (x / "metrics.jsonl").is_file()]


def _timing(run: RunFolder) -> Sequence[str]:
    """Return a run's row, from the rates in metrics.jsonl.

    Compilation, evaluations and checkpoints do not count as training. An update of
    several seeds in one program counts once.
    """
    keys = ("device", "platform", "python", "jax", "dt_jax", "git_revision")
    known = [key for key in keys if run.versions.get(key)]
    rates = run.shared_curve("steps_per_second")
    evaluation = run.shared_curve("eval/seconds")
    # The rate in a row is that of the updates since the row before.
    logged = np.array([0, *(row["step"] for row in run.rows)])
    updates = rates.steps - logged[np.searchsorted(logged, rates.steps) - 1]
    timed = rates.values[0] > 0
    count = int(updates[timed].sum())
    seconds = float((updates[timed] / rates.values[0, timed]).sum())
    return (
        printable(str(run.workdir)),
        str(len(run.seeds)),
        f"{count:,}",
        f"{count / seconds:.3g}" if seconds else EMPTY,
        format_seconds(seconds),
        format_seconds(evaluation.values.sum()) if evaluation.steps.size else EMPTY,
        printable(", ".join(f"{key} {run.versions[key]}" for key in known)),
    )


def format_seconds(seconds: float) -> str:
    """Return a duration as "48 s", "12 min" or "3.2 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
