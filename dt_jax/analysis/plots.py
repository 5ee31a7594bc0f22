"""Plots of runs: learning curves, losses, and achieved against target returns."""

import base64
import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dt_jax.analysis.experiments import Experiment
from dt_jax.runs.aggregate import Curve
from dt_jax.runs.evaluations import Evaluation
from dt_jax.utils.files import atomic_write

_BLUE, _GREY, _ORANGE = "#2f6fb2", "#8c8c8c", "#d9812c"
_BAND_ALPHA = 0.2
_HISTOGRAM_HEIGHT = 0.3  # of the highest bar, as a fraction of the plot
_SIZE = 4.8, 4.0  # inches
_WIDE = 3.0  # largest over smallest value; logarithmic axes of less have few ticks
_DASH_PERIOD = 8.0  # in widths of the line


class Panel(NamedTuple):
    """What to plot into a pair of axes."""

    kind: str  # "curves", "returns" or "loss"
    caption: str
    draw: Callable[[Axes], None]


class Plot(NamedTuple):
    """A plot as an SVG file."""

    file_name: str
    caption: str
    svg: bytes

    @property
    def data_url(self) -> str:
        """The file as a URL, for a page without other files."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}"


def plot_experiment(experiment: Experiment, number: int) -> list[Plot]:
    """Return the plots of an experiment; `number` makes their file names unique."""
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", experiment.label)[:40].strip("-.")
    note = ""
    if (count := len(experiment.seeds)) > 1:
        note = f": mean of {count} seeds ± one standard deviation"
    return [
        Plot(f"{number:02}-{slug}-{kind}.svg", f"{caption}{note}", _svg(draw))
        for kind, caption, draw in panels(experiment)
    ]


def panels(experiment: Experiment) -> list[Panel]:
    """Return the panels for which an experiment has data."""
    found, evaluation = [], experiment.evaluation
    if evaluation is not None:
        quantity, unit = "return", "return"
        if evaluation.normalized_scores is not None:
            quantity, unit = "normalized_score", "normalised score"
        targets = evaluation.target_returns.tolist()
        curves = [(t, experiment.target_curve(t, quantity)) for t in targets]
        if curves[0][1].steps.size:
            caption = f"{unit.capitalize()} over the updates"
            draw = partial(plot_targets, curves=curves, ylabel=unit)
            found.append(Panel("curves", caption, draw))
        if not np.isnan(targets).any():
            caption = "Achieved against target return, with the returns of the data"
            draw = partial(
                plot_returns,
                step=experiment.step,
                evaluation=evaluation,
                dataset=experiment.runs[0].dataset,
            )
            found.append(Panel("returns", caption, draw))
    values = experiment.curve("q_mean")
    if values.steps.size:
        draw = partial(plot_values, values=values)
        found.append(Panel("values", "Mean Q of the batches", draw))
    for name in sorted({name for row in experiment.runs[0].rows for name in row}):
        baseline = experiment.curve(f"baseline_{name}")
        if baseline.steps.size:
            loss, words = experiment.curve(name), name.replace("_", " ")
            draw = partial(
                plot_against_baseline, name=words, loss=loss, baseline=baseline
            )
            caption = f"{words.capitalize()}, beside that of the baseline"
            found.append(Panel(name.replace("_", "-"), caption, draw))
    loss, (measured, held_out) = experiment.curve("train_loss"), experiment.holdout
    if loss.steps.size or held_out.steps.size:
        draw = partial(plot_loss, loss=loss, held_out=held_out, measured=measured)
        found.append(Panel("loss", "Loss", draw))
    return found


def plot_loss(axes: Axes, loss: Curve, held_out: Curve, measured: str) -> None:
    """Plot the training loss and, if it was evaluated, the held-out error."""
    values = np.concatenate([loss.values.ravel(), held_out.values.ravel()])
    _scale(axes, values)
    if loss.steps.size:
        _plot(axes, loss, _BLUE, "training loss", linewidth=1, marker=_marker(loss))
    if held_out.steps.size:
        _plot(axes, held_out, _ORANGE, f"held-out {measured}", marker="o")
        _legend_below(axes)
    axes.set(xlabel="updates", ylabel="loss")
    axes.locator_params("x", nbins=6)
    axes.grid(alpha=0.3, which="both")


def plot_against_baseline(axes: Axes, name: str, loss: Curve, baseline: Curve) -> None:
    """Plot a loss and the one that a baseline has: equal where nothing is gained."""
    _scale(axes, np.concatenate([loss.values.ravel(), baseline.values.ravel()]))
    _plot(axes, loss, _BLUE, name, marker=_marker(loss))
    words = f"{name} of the baseline"
    _plot(axes, baseline, _ORANGE, words, linestyle="--", marker=_marker(baseline))
    axes.set(xlabel="updates", ylabel=name)
    axes.locator_params("x", nbins=6)
    axes.grid(alpha=0.3, which="both")
    _legend_below(axes)


def _marker(curve: Curve) -> str | None:
    """Return the marker of a curve of few points: a single one has no line."""
    return "o" if len(curve.steps) < 5 else None


def _scale(axes: Axes, values: np.ndarray) -> None:
    """Make the y axis logarithmic if positive values have a wide range."""
    if 0 < values.min() <= values.max() / _WIDE:
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", useOffset=False)


def plot_values(axes: Axes, values: Curve) -> None:
    """Plot a critic's mean Q, which has converged where it no longer rises or falls."""
    _plot(axes, values, _BLUE, "mean Q", linewidth=1)
    axes.set(xlabel="updates", ylabel="mean Q, in units of reward")
    axes.locator_params("x", nbins=6)
    axes.grid(alpha=0.3)


def plot_targets(
    axes: Axes, curves: Sequence[tuple[float, Curve]], ylabel: str
) -> None:
    """Plot the learning curves of target returns; NaN for an agent without them."""
    colours = colormaps["viridis"](np.linspace(0.85, 0.15, len(curves)))
    curves = sorted(curves, key=itemgetter(0))
    # Each has shorter dashes than those below it: all of a coinciding set are visible.
    dashes = np.linspace(_DASH_PERIOD, 0, len(curves), endpoint=False)
    for colour, dash, (target, curve) in zip(colours, dashes, curves, strict=True):
        style = (0, (dash, _DASH_PERIOD - dash))
        _plot(axes, curve, colour, f"target {target:g}", linestyle=style, marker=".")
    axes.set(xlabel="updates", ylabel=ylabel)
    axes.locator_params("x", nbins=6)
    axes.grid(alpha=0.3)
    if not np.isnan(curves[0][0]):
        _legend_below(axes)


def _plot(axes: Axes, curve: Curve, colour: Any, label: str, **style: Any) -> None:
    """Plot the mean over seeds with a band of one standard deviation."""
    mean, std = curve.values.mean(axis=0), curve.values.std(axis=0)
    axes.plot(curve.steps, mean, color=colour, label=label, **style)
    if len(curve.values) > 1:
        low = mean - std
        if axes.get_yscale() == "log":  # cannot show values below zero
            low = np.maximum(low, curve.values.min(axis=0))
        axes.fill_between(
            curve.steps, low, mean + std, color=colour, alpha=_BAND_ALPHA, linewidth=0
        )


def plot_returns(
    axes: Axes, step: int, evaluation: Evaluation, dataset: Mapping[str, Any]
) -> None:
    """Plot achieved against target returns, and the returns of the data.

    Args:
      axes: where to plot.
      step: completed updates at the evaluation.
      evaluation: of one seed or several.
      dataset: the identity of the data, with statistics of its returns.
    """
    order = np.argsort(evaluation.target_returns)
    targets = evaluation.target_returns[order]
    returns = np.moveaxis(evaluation.returns, -2, 0)[order]  # [K, E] or [K, S, E]
    episodes = returns.reshape(len(targets), -1)
    means = Curve(targets, np.atleast_2d(returns.mean(axis=-1).T))
    axes.scatter(
        np.repeat(targets, episodes.shape[1]),
        episodes.ravel(),
        s=18,
        color=_BLUE,
        alpha=np.clip(7 / episodes.shape[1], 0.05, 0.35),
        linewidths=0,
        rasterized=True,
    )
    axes.scatter([], [], color=_BLUE, alpha=0.35, label="episodes")
    _plot(axes, means, _BLUE, "mean", marker="o")
    achieved = means.values.mean(axis=0)
    ends = [min(targets[0], achieved.min()), max(targets[-1], achieved.max())]
    axes.plot(ends, ends, ":", color=_GREY, label="achieved = target")
    axes.axhline(
        dataset["return_mean"], color=_ORANGE, linestyle="--", label="data, mean"
    )
    axes.axhline(dataset["return_best"], color=_ORANGE, label="data, best")
    _plot_histogram(axes, dataset["return_histogram"])
    axes.set(
        xlabel="target return",
        ylabel="achieved return",
        title=f"evaluation after {step:,} updates",
    )
    axes.locator_params("x", nbins=6)
    axes.grid(alpha=0.3)
    _legend_below(axes)


def _plot_histogram(axes: Axes, histogram: Mapping[str, Any]) -> None:
    """Plot the data's returns along the targets, behind the other plots, unscaled."""
    counts, edges = (np.asarray(histogram[key], float) for key in ("counts", "edges"))
    left, right = axes.get_xlim()
    behind = axes.twinx()
    behind.stairs(counts, edges, fill=True, color=_ORANGE, alpha=0.25, linewidth=0)
    behind.set(ylim=(0, max(1.0, counts.max()) / _HISTOGRAM_HEIGHT), yticks=[])
    behind.set_zorder(axes.get_zorder() - 1)
    axes.patch.set_visible(False)
    axes.set_xlim(min(left, edges[0]), max(right, edges[-1]))
    # An entry in the legend, which belongs to the axes in front.
    axes.fill_between([], [], [], color=_ORANGE, alpha=0.25, label="data, returns")


def draw_label_histogram(histogram: Mapping[str, Any], title: str, path: Path) -> None:
    """Write a picture of labels beside the returns-to-go that they replace.

    Args:
      histogram: edges, and the counts of returns and labels.
      title: may be longer than the picture is wide.
      path: the picture.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    for name, color in ("returns", _ORANGE), ("labels", _BLUE):
        counts, edges = np.array(histogram[name]), histogram["edges"]
        axes.stairs(counts, edges, fill=True, color=color, alpha=0.4, label=name)
    # Large labels, the ones that a target asks for, are rare.
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    axes.set(xlabel="return-to-go", ylabel="transitions")
    axes.set_title(textwrap.fill(title, 50))
    axes.grid(alpha=0.3)
    _legend_below(axes)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _legend_below(axes: Axes) -> None:
    """Put the legend below the plot, where a constrained layout makes room for it."""
    axes.legend(
        fontsize="small",
        ncols=3,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        frameon=False,
        columnspacing=1.2,
        handlelength=1.5,
    )


def _svg(draw: Callable[[Axes], None]) -> bytes:
    figure = Figure(figsize=_SIZE, layout="constrained")
    draw(figure.subplots())
    file = io.BytesIO()
    # A fixed salt and no date: equal plots are equal files.
    with matplotlib.rc_context({"svg.hashsalt": "dt_jax"}):
        figure.savefig(file, format="svg", dpi=150, metadata={"Date": None})
    return file.getvalue()
