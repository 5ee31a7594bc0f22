"""The pictures of runs: learning curves, and the achieved against the target return."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from dt_jax.runs.aggregate import Curve
from dt_jax.runs.evaluations import Evaluation

_BLUE, _GREY, _ORANGE = "#2f6fb2", "#8c8c8c", "#d9812c"
_BAND = 0.2  # how opaque what lies within a standard deviation over seeds is
_HEIGHT = 0.3  # of the histogram's highest bar, as a share of the picture


def draw_loss(axes: Axes, loss: Curve, held_out: Curve) -> None:
    """Draw the training loss and, where it was measured, the held-out error."""
    axes.set_yscale("log")
    # A line needs two of them.
    marker = "o" if len(loss.steps) < 5 else None
    _draw(axes, loss, _BLUE, "training loss", linewidth=1, marker=marker)
    if held_out.steps.size:
        _draw(axes, held_out, _ORANGE, "held-out actions", marker="o")
        _legend_below(axes)
    ylabel = "squared error of actions" if held_out.steps.size else "training loss"
    axes.set(xlabel="updates", ylabel=ylabel)
    axes.grid(alpha=0.3, which="both")


def draw_targets(axes: Axes, curves: Mapping[float, Curve], ylabel: str) -> None:
    """Draw what was reached at each target return, over the updates."""
    colours = colormaps["viridis"](np.linspace(0.85, 0.15, len(curves)))
    for colour, (target, curve) in zip(colours, sorted(curves.items()), strict=True):
        _draw(axes, curve, colour, f"target {target:g}", marker=".")
    axes.set(xlabel="updates", ylabel=ylabel)
    axes.grid(alpha=0.3)
    _legend_below(axes)


def _draw(axes: Axes, curve: Curve, colour: Any, label: str, **style: Any) -> None:
    """Draw the mean over seeds and, of several, one standard deviation around it."""
    mean, std = curve.values.mean(axis=0), curve.values.std(axis=0)
    axes.plot(curve.steps, mean, color=colour, label=label, **style)
    if len(curve.values) > 1:
        low, high = mean - std, mean + std
        if axes.get_yscale() == "log":  # where less than 0 would be infinitely low
            low = np.maximum(low, curve.values.min(axis=0))
        axes.fill_between(
            curve.steps, low, high, color=colour, alpha=_BAND, linewidth=0
        )


def draw_returns(
    axes: Axes, step: int, evaluation: Evaluation, dataset: Mapping[str, Any]
) -> None:
    """Draw the achieved against the target return, and the data's returns.

    Args:
      axes: where.
      step: updates completed before the evaluation.
      evaluation: its episodes.
      dataset: the identity of the data; older ones have no histogram.
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
        alpha=max(0.05, min(0.35, 7 / episodes.shape[1])),
        linewidths=0,
        rasterized=True,
    )
    axes.scatter([], [], color=_BLUE, alpha=0.35, label="each episode")
    _draw(axes, means, _BLUE, "their mean", marker="o")
    achieved = means.values.mean(axis=0)
    ends = [min(targets[0], achieved.min()), max(targets[-1], achieved.max())]
    axes.plot(ends, ends, ":", color=_GREY, label="achieved = target")
    axes.axhline(
        dataset["return_mean"], color=_ORANGE, linestyle="--", label="data, mean"
    )
    axes.axhline(dataset["return_best"], color=_ORANGE, label="data, best")
    if histogram := dataset.get("return_histogram"):
        _draw_histogram(axes, histogram)
    axes.set(
        xlabel="target return",
        ylabel="achieved return",
        title=f"evaluation after {step:,} updates",
    )
    axes.grid(alpha=0.3)
    _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    """Name what is drawn, where nothing is: a constrained layout makes room."""
    axes.legend(
        fontsize="small",
        ncols=3,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        frameon=False,
        columnspacing=1.2,
        handlelength=1.5,
    )


def _draw_histogram(axes: Axes, histogram: Mapping[str, Any]) -> None:
    """Draw the data's returns along the targets, behind all else, to no scale."""
    counts, edges = (np.asarray(histogram[key], float) for key in ("counts", "edges"))
    left, right = axes.get_xlim()
    behind = axes.twinx()
    behind.stairs(counts, edges, fill=True, color=_ORANGE, alpha=0.25, linewidth=0)
    behind.set(ylim=(0, max(1.0, counts.max()) / _HEIGHT), yticks=[])
    behind.set_zorder(axes.get_zorder() - 1)
    axes.patch.set_visible(False)  # the one behind is to be seen through
    axes.set_xlim(min(left, edges[0]), max(right, edges[-1]))
    # In the legend that is drawn in front.
    axes.fill_between([], [], [], color=_ORANGE, alpha=0.25, label="data, returns")
