"""What a run came to: a table on the terminal, a picture in its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dt_jax.across_seeds import interquartile_mean
from dt_jax.data import minari
from dt_jax.errors import printable
from dt_jax.evaluation import Evaluation, last_evaluation
from dt_jax.files import replacing
from dt_jax.holdout import METRIC as HOLDOUT
from dt_jax.metrics import read_metrics

_BLUE, _GREY, _ORANGE = "#2f6fb2", "#8c8c8c", "#d9812c"


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
    """Return a row for each target return; ± is the standard error over episodes.

    Of several seeds it is that over the seeds' means, and a column more has their
    interquartile mean with its 95% bootstrap interval.
    """
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    scores = evaluation.normalized_scores
    *seeds, _, episodes = evaluation.returns.shape
    table.add_column("target", justify="right")
    table.add_column("return", justify="right")
    if scores is not None:
        table.add_column("normalised score", justify="right")
    if seeds:
        of = "return" if scores is None else "score"
        table.add_column(f"IQM of the {of} over seeds", justify="right")
    table.add_column("length", justify="right")
    table.add_column("seeds x episodes" if seeds else "episodes", justify="right")
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
        if seeds:
            iqm, low, high = interquartile_mean(compared.mean(axis=-1))
            row.append(f"{iqm:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
        row.append(f"{lengths.mean():.0f}")
        row.append(" x ".join(map(str, [*seeds, episodes])))
        table.add_row(*row)
    return table


def _with_error(values: np.ndarray, digits: int) -> str:
    """Return the mean of episodes [E], or of seeds' means [S, E], with its error."""
    values = values.mean(axis=-1) if values.ndim == 2 else values
    if len(values) == 1:
        return f"{values.mean():.{digits}f}"
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def show(workdir: Path, label: str) -> None:
    """Print the final table of a run, and where its picture is."""
    console = Console()
    if newest := last_evaluation(workdir):
        step, evaluation = newest
        console.print(evaluation_table(evaluation, f"{label}, after {step} updates"))
    if rows := [r for r in read_metrics(workdir / "metrics.jsonl") if HOLDOUT in r]:
        least = min(rows, key=lambda row: row[HOLDOUT])
        print(
            f"{label}: squared error of held-out actions {rows[-1][HOLDOUT]:.4g}, at "
            f"the least {least[HOLDOUT]:.4g} after {least['step']} updates"
        )
    print(f"run folder {workdir}, picture {workdir / 'summary.png'}")


def draw(workdir: Path, label: str, dataset: dict[str, Any]) -> None:
    """Write summary.png: the loss, and the achieved against the target return.

    Args:
      workdir: the run's folder.
      label: what the run was trained on.
      dataset: its identity, with the mean and the best return of its trajectories.
    """
    newest = last_evaluation(workdir)
    panels = 2 if newest else 1
    figure = Figure(figsize=(5 * panels, 4), layout="constrained")
    _draw_loss(
        figure.add_subplot(1, panels, 1), read_metrics(workdir / "metrics.jsonl")
    )
    if newest:
        _draw_returns(figure.add_subplot(1, panels, 2), *newest, dataset)
    figure.suptitle(label, parse_math=False)
    with replacing(workdir / "summary.png") as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_loss(axes: Axes, rows: list[dict[str, Any]]) -> None:
    trained = [row for row in rows if "train_loss" in row]
    steps, losses = ([row[key] for row in trained] for key in ("step", "train_loss"))
    marker = "o" if len(steps) < 5 else None  # a line needs two of them
    axes.plot(
        steps, losses, color=_BLUE, linewidth=1, marker=marker, label="training loss"
    )
    if held_out := [row for row in rows if HOLDOUT in row]:
        axes.plot(
            [row["step"] for row in held_out],
            [row[HOLDOUT] for row in held_out],
            "o-",
            color=_ORANGE,
            label="held-out actions",
        )
        axes.legend(fontsize="small")
    ylabel = "squared error of actions" if held_out else "training loss"
    axes.set(xlabel="updates", ylabel=ylabel, yscale="log")
    axes.grid(alpha=0.3, which="both")


def _draw_returns(
    axes: Axes, step: int, evaluation: Evaluation, dataset: dict[str, Any]
) -> None:
    targets = evaluation.target_returns
    # Of several seeds all together, [K, S·E].
    returns = np.moveaxis(evaluation.returns, -2, 0).reshape(len(targets), -1)
    every = np.repeat(targets, returns.shape[1])
    axes.scatter(
        every,
        returns.ravel(),
        s=18,
        color=_BLUE,
        alpha=0.35,
        linewidths=0,
        label="achieved, each episode",
    )
    order = np.argsort(targets)
    means = returns.mean(axis=1)
    axes.plot(
        targets[order],
        means[order],
        "o-",
        color=_BLUE,
        label="achieved, mean of episodes",
    )
    ends = [min(targets.min(), means.min()), max(targets.max(), means.max())]
    axes.plot(ends, ends, ":", color=_GREY, label="achieved = target")
    axes.axhline(
        dataset["return_mean"], color=_ORANGE, linestyle="--", label="data, mean"
    )
    axes.axhline(dataset["return_best"], color=_ORANGE, label="data, best")
    axes.set(
        xlabel="target return",
        ylabel="achieved return",
        title=f"evaluation after {step} updates",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
