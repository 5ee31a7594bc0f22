"""Report on runs: python -m dt_jax report runs/* --out=report."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dt_jax.analysis.report import build_report, write_report
from dt_jax.cli.common import CommandParser
from dt_jax.utils.errors import printable
from dt_jax.utils.files import user_path


def main(arguments: Sequence[str]) -> None:
    """Read the runs, write the report and print its summary."""
    args = _parser().parse_args(arguments)
    report = build_report(args.runs)
    out = user_path(args.out)
    write_report(report, out)
    for section in report.summary:
        for table in section.tables:
            Console().print(table.rich())
        for name, deviations in section.notes:
            print(f"{name}: {deviations}")
    print(f"report {printable(str(out / 'index.html'))}, tables {out / 'report.md'}")


def _parser() -> CommandParser:
    parser = CommandParser(
        command="report",
        description="Report on runs: one HTML page with learning curves, achieved "
        "against target returns, scores beside CORL's and the paper's, and timing; the "
        "same tables in Markdown; the plots as SVG. Runs that differ only in their "
        "seed are aggregated.",
        example="runs/* --out=report",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument(
        "--out", default="report", type=Path, help="output folder (default: report)"
    )
    return parser
