"""Report on runs: python -m dt_jax report runs/* --out=report."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dt_jax.analysis import experiments, tables
from dt_jax.analysis.page import Report, as_html, as_markdown
from dt_jax.analysis.pictures import file_name, pictures_of
from dt_jax.analysis.scores import scores_of
from dt_jax.cli.common import CommandParser
from dt_jax.runs.aggregate import check_rliable
from dt_jax.utils.errors import UserError, printable
from dt_jax.utils.files import replacing, user_path, write_text


def main(arguments: Sequence[str]) -> None:
    """Read the runs, write the report, and print its first table."""
    args = _parser().parse_args(arguments)
    report = make(args.runs)
    out = user_path(args.out)
    write(report, out)
    _show(report)
    print(f"report {printable(str(out / 'index.html'))}, tables {out / 'report.md'}")


def make(folders: list[Path]) -> Report:
    """Return the report on the runs in `folders`.

    Raises:
      UserError: none of them is a run.
    """
    found = experiments.read(folders)
    intervals = _have_rliable()
    return Report(
        scores=[scores_of(each, intervals) for each in found],
        pictures=[pictures_of(each) for each in found],
        intervals=intervals,
    )


def write(report: Report, out: Path) -> None:
    """Write the page, the tables and the pictures into the folder `out`."""
    for i, (experiment, pictures) in enumerate(
        zip(report.experiments, report.pictures, strict=True), 1
    ):
        for picture in pictures:
            with replacing(out / file_name(experiment, picture, i)) as temporary:
                temporary.write_bytes(picture.svg)
    write_text(out / "report.md", as_markdown(report))
    write_text(out / "index.html", as_html(report))


def _show(report: Report) -> None:
    header, rows = tables.compared(report.scores)
    table = Table(
        title="normalised scores",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,  # so that all names of CORL's fit into 80 columns
        pad_edge=False,
    )
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
    for name, note in report.notes:
        print(f"{name}: {note}")


def _have_rliable() -> bool:
    try:
        check_rliable()
    except UserError:
        return False
    return True


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m dt_jax report",
        description="Report on runs: one HTML page with learning curves, achieved "
        "against target returns, scores beside CORL's and the paper's, and timing; the "
        "same tables in Markdown; the pictures as SVG. Runs that differ in their seed "
        "alone are taken together.",
        epilog="example: python -m dt_jax report runs/* --out=report",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="the folders of runs")
    parser.add_argument(
        "--out", default="report", type=Path, help="the folder to write (report)"
    )
    return parser
