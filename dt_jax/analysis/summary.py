"""Summary at the end of a run: tables on the terminal, summary.png in its folder."""

from matplotlib.figure import Figure
from rich.console import Console

from dt_jax.analysis.experiments import run_label
from dt_jax.analysis.plots import plot_loss, plot_returns
from dt_jax.analysis.tables import evaluation_table
from dt_jax.evaluation.holdout import METRIC as HOLDOUT
from dt_jax.runs.folder import Run
from dt_jax.utils.files import replacing


def show(run: Run) -> None:
    """Print a run's last evaluation, its held-out error and its folder."""
    label = run_label(run)
    if run.newest:
        step, evaluation = run.newest
        title = f"{label}, after {step} updates"
        Console().print(evaluation_table(evaluation, title).rich())
    if rows := [row for row in run.rows if HOLDOUT in row]:
        lowest = min(rows, key=lambda row: row[HOLDOUT])
        print(
            f"{label}: squared error of held-out actions {rows[-1][HOLDOUT]:.4g}, "
            f"lowest {lowest[HOLDOUT]:.4g} after {lowest['step']} updates"
        )
    print(f"run folder {run.workdir}, plots {run.workdir / 'summary.png'}")


def draw(run: Run) -> None:
    """Write summary.png: the loss, and achieved against target returns."""
    loss, held_out = run.curve("train_loss"), run.curve(HOLDOUT)
    with_loss = loss.steps.size or held_out.steps.size or not run.newest
    count = bool(with_loss) + bool(run.newest)
    figure = Figure(figsize=(5 * count, 4.4), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    if with_loss:
        plot_loss(axes[0], loss, held_out)
    if run.newest:
        plot_returns(axes[-1], *run.newest, run.dataset)
    figure.suptitle(run_label(run), parse_math=False)
    with replacing(run.workdir / "summary.png") as temporary:
        figure.savefig(temporary, dpi=120)
