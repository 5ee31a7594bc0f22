"""What a run came to: a table on the terminal, a picture in its folder."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dt_jax.analysis.figures import draw_loss, draw_returns
from dt_jax.data import minari
from dt_jax.evaluation.run_evaluator import HOLDOUT_METRIC as HOLDOUT
from dt_jax.runs.aggregate import interquartile_mean
from dt_jax.runs.evaluations import Evaluation
from dt_jax.runs.folder import RunFolder as Run
from dt_jax.utils.errors import printable
from dt_jax.utils.files import replacing


def data_label(
    config: Mapping[str, Any], dataset: Mapping[str, Any], scored_as: str | None
) -> str:
    """Return what scores were reached on, as every table and picture names it.

    Args:
      config: the run's.
      dataset: its identity.
      scored_as: the env_name of the evaluation, if there was one.
    """
    trained_on, by_path = config["env_name"], config["data_path"] is not None
    if by_path or trained_on is None or trained_on.startswith(minari.PREFIX):
        trained_on = dataset["source"]  # with a note where D4RL's scores are no measure
    if scored_as is None or (not by_path and scored_as == config["env_name"]):
        return printable(trained_on)
    return printable(f"{trained_on} (scored as {scored_as})")


def evaluation_table(evaluation: Evaluation, title: str) -> Table:
    """Return a row for each target return, see `evaluation_rows`."""
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    header, *rows = evaluation_rows(evaluation)
    for name in header:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def evaluation_rows(evaluation: Evaluation, intervals: bool = True) -> list[list[str]]:
    """Return a header and a row for each target; ± is the standard error over episodes.

    Of several seeds it is that over the seeds' means, and a column more has their
    interquartile mean with its 95% bootstrap interval.

    Args:
      evaluation: of one seed or several.
      intervals: False leaves that column out.
    """
    scores = evaluation.normalized_scores
    *seeds, _, episodes = evaluation.returns.shape
    header = ["target", "return"]
    if scores is not None:
        header.append("normalised score")
    if seeds and intervals:
        header.append(
            f"IQM of the {'return' if scores is None else 'score'} over seeds"
        )
    header += ["length", "seeds x episodes" if seeds else "episodes"]
    rows = [header]
    for k, target in enumerate(evaluation.target_returns):
        returns, lengths = (
            values[..., k, :] for values in (evaluation.returns, evaluation.lengths)
        )
        digits = 1 if abs(target) >= 10 else 3
        row = [f"{target:g}", _with_error(returns, digits)]
        compared = returns
        if scores is not None:
            compared, digits = scores[..., k, :], 1
            row.append(_with_error(compared, digits))
        if seeds and intervals:
            iqm, low, high = interquartile_mean(compared.mean(axis=-1))
            row.append(f"{iqm:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
        row.append(f"{lengths.mean():.0f}")
        row.append(" x ".join(map(str, [*seeds, episodes])))
        rows.append(row)
    return rows


def _with_error(values: np.ndarray, digits: int) -> str:
    """Return the mean of episodes [E], or of seeds' means [S, E], with its error."""
    values = values.mean(axis=-1) if values.ndim == 2 else values
    if len(values) == 1:
        return f"{values.mean():.{digits}f}"
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def show(run: Run, label: str) -> None:
    """Print the final table of a run, and where its picture is."""
    console = Console()
    if run.newest:
        step, evaluation = run.newest
        console.print(evaluation_table(evaluation, f"{label}, after {step} updates"))
    if rows := [row for row in run.rows if HOLDOUT in row]:
        least = min(rows, key=lambda row: row[HOLDOUT])
        print(
            f"{label}: squared error of held-out actions {rows[-1][HOLDOUT]:.4g}, at "
            f"the least {least[HOLDOUT]:.4g} after {least['step']} updates"
        )
    print(f"run folder {run.workdir}, picture {run.workdir / 'summary.png'}")


def draw(run: Run, label: str) -> None:
    """Write summary.png: the loss, and the achieved against the target return.

    Args:
      run: what is in its folder.
      label: what it was trained on.
    """
    panels = 2 if run.newest else 1
    figure = Figure(figsize=(5 * panels, 4.4), layout="constrained")
    loss, held_out = run.curve("train_loss"), run.curve(HOLDOUT)
    draw_loss(figure.add_subplot(1, panels, 1), loss, held_out)
    if (newest := run.newest) is not None:
        draw_returns(figure.add_subplot(1, panels, 2), *newest, run.dataset)
    figure.suptitle(label, parse_math=False)
    with replacing(run.workdir / "summary.png") as temporary:
        figure.savefig(temporary, dpi=120)
