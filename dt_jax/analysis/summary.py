"""Summary at the end of a run: tables on the terminal, summary.png in its folder."""

from matplotlib.figure import Figure
from rich.console import Console

from dt_jax.analysis.experiments import Experiment, run_label
from dt_jax.analysis.plots import panels
from dt_jax.analysis.tables import evaluation_table
from dt_jax.runs.folder import RunFolder
from dt_jax.runs.metrics import holdout_words
from dt_jax.utils.files import atomic_write


def show(run: RunFolder) -> None:
    """Print a run's last evaluation, its held-out error and its folder."""
    label = run_label(run)
    if run.newest:
        step, evaluation = run.newest
        title = f"{label}, after {step} updates"
        Console().print(evaluation_table(evaluation, title).rich())
    name = run.holdout_metric
    if rows := [row for row in run.rows if name in row]:
        errors = [row[name] for row in rows]
        lowest = min(errors)
        print(
            f"{label}: held-out {holdout_words(name)} {errors[-1]:.4g}, lowest "
            f"{lowest:.4g} after {rows[errors.index(lowest)]['step']} updates"
        )
    print(f"run folder {run.workdir}, plots {run.workdir / 'summary.png'}")


def draw(run: RunFolder) -> None:
    """Write summary.png: learning curves, achieved against target returns, the loss."""
    found = panels(Experiment((run,)))
    figure = Figure(figsize=(5 * max(1, len(found)), 4.4), layout="constrained")
    for column, panel in enumerate(found, 1):
        panel.draw(figure.add_subplot(1, len(found), column))
    figure.suptitle(run_label(run), parse_math=False)
    with atomic_write(run.workdir / "summary.png") as temporary:
        figure.savefig(temporary, dpi=120)
