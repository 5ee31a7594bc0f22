"""The pictures of an experiment."""

import io
import re
from collections.abc import Callable
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dt_jax.across_seeds import Curve
from dt_jax.figures import draw_loss, draw_returns, draw_targets
from dt_jax.holdout import METRIC as HOLDOUT
from dt_jax.report.experiments import Experiment

_SIZE = 4.8, 3.6  # inches


class Picture(NamedTuple):
    """An SVG, and what is to be seen in it."""

    kind: str
    caption: str
    svg: bytes


def pictures_of(experiment: Experiment) -> list[Picture]:
    """Return the pictures of an experiment, as far as there is something to draw."""
    band = ""
    if len(experiment.seeds) > 1:
        band = "; mean over seeds, and one standard deviation around it"
    loss, held_out = experiment.curve("train_loss"), experiment.curve(HOLDOUT)
    found = []
    curves, of = learning_curves(experiment)
    if curves:
        found.append(
            Picture(
                "curves",
                f"{of}, mean over episodes{band}",
                _svg(lambda axes: draw_targets(axes, curves, of)),
            )
        )
    if (evaluation := experiment.evaluation) is not None:
        found.append(
            Picture(
                "returns",
                f"Achieved against target return, over the data's returns{band}",
                _svg(
                    lambda axes: draw_returns(
                        axes, experiment.step, evaluation, experiment.runs[0].dataset
                    )
                ),
            )
        )
    if loss.steps.size:
        found.append(
            Picture(
                "loss",
                f"Loss{band}",
                _svg(lambda axes: draw_loss(axes, loss, held_out)),
            )
        )
    return found


def learning_curves(experiment: Experiment) -> tuple[dict[float, Curve], str]:
    """Return what was reached at each target over the updates, and in what unit."""
    metric, of = "return", "Return"
    evaluation = experiment.evaluation
    if evaluation is not None and evaluation.normalized_scores is not None:
        metric, of = "normalized_score", "Normalised score"
    targets = [] if evaluation is None else evaluation.target_returns.tolist()
    curves = {t: experiment.curve(f"eval/{t}_{metric}_mean") for t in targets}
    return {t: curve for t, curve in curves.items() if curve.steps.size}, of


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
