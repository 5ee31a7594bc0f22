"""The pictures of an experiment."""

import io
import re
from collections.abc import Callable
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dt_jax.analysis.experiments import Experiment
from dt_jax.analysis.figures import draw_loss, draw_returns, draw_targets
from dt_jax.evaluation.run_evaluator import HOLDOUT_METRIC as HOLDOUT
from dt_jax.runs.aggregate import Curve

_SIZE = 4.8, 4.0  # inches


class Picture(NamedTuple):
    """An SVG, and what is to be seen in it."""

    kind: str
    caption: str
    svg: bytes


def pictures_of(experiment: Experiment) -> list[Picture]:
    """Return the pictures of an experiment, as far as there is something to draw."""
    of_seeds = ""
    if (count := len(experiment.seeds)) > 1:
        of_seeds = f": the mean of {count} seeds, and one standard deviation around it"
    found = []

    def add(kind: str, caption: str, draw: Callable[[Axes], None]) -> None:
        found.append(Picture(kind, f"{caption}{of_seeds}", _svg(draw)))

    curves, what = learning_curves(experiment)
    if curves:
        add(
            "curves",
            f"{what.capitalize()} over the updates",
            lambda axes: draw_targets(axes, curves, what),
        )
    if (evaluation := experiment.evaluation) is not None:
        step, dataset = experiment.step, experiment.runs[0].dataset
        add(
            "returns",
            "Achieved against target return, over the data's returns",
            lambda axes: draw_returns(axes, step, evaluation, dataset),
        )
    loss, held_out = experiment.curve("train_loss"), experiment.curve(HOLDOUT)
    if loss.steps.size:
        caption = "Training loss"
        if held_out.steps.size:
            caption += " and held-out error"
        add("loss", caption, lambda axes: draw_loss(axes, loss, held_out))
    return found


def learning_curves(experiment: Experiment) -> tuple[dict[float, Curve], str]:
    """Return what was reached at each target over the updates, and in what unit."""
    metric, what = "return", "return"
    evaluation = experiment.evaluation
    if evaluation is not None and evaluation.normalized_scores is not None:
        metric, what = "normalized_score", "normalised score"
    targets = [] if evaluation is None else evaluation.target_returns.tolist()
    curves = {t: experiment.curve(f"eval/{t}_{metric}_mean") for t in targets}
    return {t: curve for t, curve in curves.items() if curve.steps.size}, what


def file_name(experiment: Experiment, picture: Picture, number: int) -> str:
    """Return the name of a picture's file, which no other experiment's has."""
    words = re.sub(r"[^A-Za-z0-9.]+", "-", experiment.name).strip("-.")[:80]
    return f"{number:02}-{words}-{picture.kind}.svg"


def _svg(draw: Callable[[Axes], None]) -> bytes:
    figure = Figure(figsize=_SIZE, layout="constrained")
    draw(figure.subplots())
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "dt_jax"}):  # the same file each time
        figure.savefig(file, format="svg", dpi=150, metadata={"Date": None})
    return file.getvalue()
