"""A report as one HTML page that needs nothing else, and in Markdown."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template

from dt_jax.analysis import tables
from dt_jax.analysis.experiments import Experiment
from dt_jax.analysis.pictures import Picture
from dt_jax.analysis.published import sources
from dt_jax.analysis.scores import Scores
from dt_jax.analysis.tables import Table

_MOST_IN_A_NUMBER = 32  # characters; what is longer is text


@dataclass(frozen=True, eq=False)
class Report:
    """What there is to say about some experiments.

    Attributes:
      scores: of each experiment.
      pictures: of each.
      intervals: whether bootstrap intervals could be computed.
    """

    scores: Sequence[Scores]
    pictures: Sequence[Sequence[Picture]]
    intervals: bool

    @property
    def experiments(self) -> list[Experiment]:
        """Runs that differ in their seed alone are one."""
        return [each.experiment for each in self.scores]

    @property
    def count(self) -> str:
        """How much it is about."""
        runs = sum(len(each.runs) for each in self.experiments)
        seeds = sum(len(each.seeds) for each in self.experiments)
        return (
            f"{_number(len(self.scores), 'experiment')}: {_number(runs, 'run')}, "
            f"{_number(seeds, 'seed')}"
        )

    @property
    def notes(self) -> list[tuple[str, str]]:
        """What experiments on D4RL's data did otherwise than CORL, by their names."""
        return [
            (each.experiment.name, "; ".join(each.deviations))
            for each in self.scores
            if each.deviations
        ]


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def legend(report: Report) -> list[tuple[str, str]]:
    """Return what the columns of the first two tables mean."""
    corl, paper = sources()
    interval = (
        "of several seeds the interquartile mean and its 95% bootstrap interval; of "
        "one seed the standard error over episodes."
    )
    if not report.intervals:
        interval = (
            "the standard error; bootstrap intervals over seeds need "
            "pip install 'dt_jax[seeds]'."
        )
    return [
        (
            "ours",
            "the mean normalised score over seeds at the last evaluation, ± their "
            "standard deviation (dividing by their number, as CORL does), at the "
            "target in the second table: the largest that CORL asks for, else ours.",
        ),
        ("CORL", f"{corl}. Other data than D4RL's is named there, and not compared."),
        ("diff.", "ours less CORL's."),
        (
            "within",
            "whether that is at most CORL's standard deviation. Told only where all "
            "settings are CORL's; the engine is another MuJoCo, and each episode has "
            "its own seed. Of equal methods with four seeds each, 31% differ by more.",
        ),
        ("interval", interval),
        (
            "best",
            "the mean of each seed's best evaluation, which is chosen by the very "
            "scores it is judged by.",
        ),
        ("paper", f"{paper}."),
    ]


def as_markdown(report: Report) -> str:
    """Return the tables in Markdown."""
    parts = [
        f"# Report on {report.count}",
        "## Normalised scores at the last evaluation",
        tables.markdown(tables.compared(report.scores)),
        _listed(report.notes),
        "## Intervals, best scores and the paper's",
        tables.markdown(tables.further(report.scores)),
        _listed(legend(report)),
    ]
    for experiment in report.experiments:
        parts += [f"## {tables.plain(experiment.name)}", _extent(experiment)]
        parts += map(tables.markdown, _details(report, experiment))
    parts += ["## Timing", tables.markdown(tables.timings(report.experiments))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _listed(items: Sequence[tuple[str, str]]) -> str:
    return "\n".join(
        f"- **{tables.plain(term)}**: {tables.plain(text)}" for term, text in items
    )


def as_html(report: Report) -> str:
    """Return the page, with its pictures in it."""
    parts = [
        f"<h1>Report on {escape(report.count)}</h1>",
        "<h2>Normalised scores at the last evaluation</h2>",
        _html(tables.compared(report.scores)),
        _html_list(report.notes),
        "<h2>Intervals, best scores and the paper's</h2>",
        _html(tables.further(report.scores)),
        _html_list(legend(report)),
    ]
    for scores, pictures in zip(report.scores, report.pictures, strict=True):
        parts += _section(report, scores.experiment, pictures)
    parts += ["<h2>Timing</h2>", _html(tables.timings(report.experiments))]
    template = (files("dt_jax.analysis") / "page.html").read_text()
    return Template(template).substitute(
        count=escape(report.count), body="\n".join(parts)
    )


def _html_list(items: Sequence[tuple[str, str]]) -> str:
    if not items:
        return ""
    lines = "\n".join(
        f"<li><b>{escape(term)}</b>: {escape(text)}</li>" for term, text in items
    )
    return f'<ul class="faint">{lines}</ul>'


def _section(
    report: Report, experiment: Experiment, pictures: Sequence[Picture]
) -> list[str]:
    return [
        f"<h2>{escape(experiment.name)}</h2>",
        f'<p class="faint">{_extent(experiment)}</p>',
        '<div class="pictures">',
        *map(_figure, pictures),
        "</div>",
        *map(_html, _details(report, experiment)),
    ]


def _extent(experiment: Experiment) -> str:
    seeds = ", ".join(map(str, experiment.seeds))
    return (
        f"{_number(len(experiment.seeds), 'seed')} ({seeds}), "
        f"{experiment.step:,} of {experiment.config.update_steps:,} updates"
    )


def _details(report: Report, experiment: Experiment) -> list[Table]:
    found = [
        tables.targets(experiment, report.intervals),
        tables.held_out(experiment),
    ]
    return [table for table in found if table]


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.svg).decode()
    caption = escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _html(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in table.rows)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    kind = ' class="text"' if len(text) > _MOST_IN_A_NUMBER else ""
    # Where a narrow page may break names of keys and of files.
    shown = re.sub(r"([_=/])", r"\1<wbr>", escape(text))
    return f"<td{kind}>{shown}</td>"
