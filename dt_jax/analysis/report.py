"""Report on runs: a self-contained HTML page, tables in Markdown, plots as SVG."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from dt_jax.analysis.experiments import Experiment, read_experiments
from dt_jax.analysis.plots import Plot, plot_experiment
from dt_jax.analysis.published import SOURCES
from dt_jax.analysis.scores import compute_scores
from dt_jax.analysis.tables import (
    Table,
    escape_markdown,
    evaluation_table,
    holdout_table,
    interval_table,
    returns_table,
    score_table,
    timing_table,
)
from dt_jax.utils.files import atomic_write, remove_leftovers


@dataclass(frozen=True)
class Section:
    """A section of a report: a sentence, plots, tables, terms with explanations."""

    title: str
    text: str = ""
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
      title: with the number of experiments, runs and seeds.
      sections: two on scores, if there are any; one per experiment; the timing.
      summary: the sections whose tables the command prints.
    """

    title: str
    sections: Sequence[Section]
    summary: Sequence[Section]


def build_report(folders: Iterable[Path]) -> Report:
    """Return the report on the runs in `folders`.

    Raises:
      UserError: no folder holds a run.
    """
    experiments = read_experiments(folders)
    scores = [compute_scores(experiment) for experiment in experiments]
    deviations = [
        (each.experiment.name, "; ".join(each.deviations))
        for each in scores
        if each.deviations
    ]
    counts = [
        _count(len(experiments), "experiment"),
        _count(sum(len(each.runs) for each in experiments), "run"),
        _count(sum(len(each.seeds) for each in experiments), "seed"),
    ]
    scored = []
    if any(each.last or each.published for each in scores):
        scored = [
            Section(
                "Normalised scores at the last evaluation",
                tables=[score_table(scores)],
                notes=deviations,
            ),
            Section(
                "Confidence intervals, best scores and the paper's scores",
                tables=[interval_table(scores)],
                notes=_legend(),
            ),
        ]
    elif len(evaluated := [each for each in experiments if each.evaluation]) > 1:
        table = returns_table(evaluated)
        scored = [Section("Returns at the last evaluation", tables=[table])]
    single = [_section(each, i) for i, each in enumerate(experiments, 1)]
    timing = Section("Timing", tables=[timing_table(experiments)])
    return Report(
        f"Report on {counts[0]}: {counts[1]}, {counts[2]}",
        sections=[*scored, *single, timing],
        summary=scored[:1] or single,
    )


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _legend() -> list[tuple[str, str]]:
    """Return the meaning of the columns of the first two tables."""
    corl, paper = SOURCES
    return [
        (
            "ours",
            "mean normalised score over seeds at the last evaluation ± standard "
            "deviation (divided by the number of seeds, as in CORL), at the target "
            "return of the second table: CORL's largest, or else the experiment's.",
        ),
        ("CORL", f"{corl}. Data from other sources are named and not compared."),
        ("diff.", "ours minus CORL."),
        (
            "within",
            "whether the difference is at most CORL's standard deviation; only if all "
            "settings are CORL's. The physics engine is another version of MuJoCo, and "
            "each episode has its own seed. For two equal methods with four seeds "
            "each, 31% of differences are larger.",
        ),
        (
            "interval",
            "several seeds: interquartile mean and its 95% bootstrap interval; one "
            "seed: standard error over episodes.",
        ),
        (
            "best",
            "mean of the best evaluation of each seed, without that of the untrained "
            "network. It is selected by the same scores that it reports, so it is too "
            "high.",
        ),
        ("paper", f"{paper}."),
    ]


def _section(experiment: Experiment, number: int) -> Section:
    seeds = ", ".join(map(str, experiment.seeds))
    evaluation = experiment.evaluation
    tables = [
        evaluation and evaluation_table(evaluation, experiment.name),
        holdout_table(experiment),
    ]
    return Section(
        experiment.name,
        f"{_count(len(experiment.seeds), 'seed')} ({seeds}), "
        f"{experiment.step:,} of {experiment.config.update_steps:,} updates",
        plots=plot_experiment(experiment, number),
        tables=[table for table in tables if table],
    )


def write_report(report: Report, folder: Path) -> None:
    """Write index.html, report.md and the plots."""
    plots = [plot for section in report.sections for plot in section.plots]
    contents = {plot.file_name: plot.svg for plot in plots}
    contents["report.md"] = to_markdown(report).encode()
    contents["index.html"] = to_html(report).encode()
    for name, content in contents.items():
        remove_leftovers(folder / name)
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(content)


def to_markdown(report: Report) -> str:
    """Return the tables and notes in Markdown."""
    blocks = [f"# {report.title}"]
    for section in report.sections:
        blocks += [f"## {escape_markdown(section.title)}", section.text]
        blocks += [table.markdown() for table in section.tables]
        items = [map(escape_markdown, note) for note in section.notes]
        blocks.append("\n".join(f"- **{term}**: {text}" for term, text in items))
    return "\n\n".join(block for block in blocks if block) + "\n"


def to_html(report: Report) -> str:
    """Return the page, with the plots embedded."""
    environment = Environment(
        loader=PackageLoader("dt_jax.analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(report=report)
