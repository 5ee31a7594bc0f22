"""A run's folder: what it holds, and reading it back."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dt_jax.runs.aggregate import Curve
from dt_jax.runs.checkpoint import Checkpoint, choose_checkpoint
from dt_jax.runs.evaluations import Evaluation, last_evaluation
from dt_jax.runs.metrics import holdout_metric, read_metrics
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import to_json, user_path, write_text


@dataclass(frozen=True, eq=False)
class RunFolder:
    """A run's folder, read back."""

    workdir: Path
    config: ConfigDict
    dataset: Mapping[str, Any]  # the identity of its data
    versions: Mapping[str, Any]  # of the software that trained it

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        return read_metrics(self.workdir / "metrics.jsonl")

    @cached_property
    def newest(self) -> tuple[int, Evaluation] | None:
        """The step and the episodes of the newest evaluation, if there was one."""
        return last_evaluation(self.workdir)

    @property
    def seeds(self) -> range:
        """The S seeds of training."""
        first = self.config.train_seed
        return range(first, first + self.config.num_seeds)

    @cached_property
    def holdout_metric(self) -> str:
        """The name of the metric of held-out trajectories, if there is one."""
        return holdout_metric(self.rows)

    def curve(self, metric: str) -> Curve:
        """Return a metric over the updates, of each seed; T may be 0."""
        if len(self.seeds) == 1:
            return self.shared_curve(metric)
        return self._curve([f"seed_{seed}/{metric}" for seed in self.seeds])

    def shared_curve(self, metric: str) -> Curve:
        """Return a metric that all seeds share, as of one seed; see `curve`."""
        return self._curve([metric])

    def _curve(self, names: list[str]) -> Curve:
        rows = [row for row in self.rows if all(name in row for name in names)]
        return Curve(
            np.array([row["step"] for row in rows], np.int64),
            np.array([[row[name] for row in rows] for name in names], np.float64),
        )


def write_description(workdir: Path, record: Mapping[str, Any]) -> None:
    """Write config.json and versions.json, copies of a run's record for people."""
    workdir.mkdir(parents=True, exist_ok=True)
    about = {**record["versions"], "dataset": record["dataset"]}
    for name, values in (("config", record["config"]), ("versions", about)):
        write_text(workdir / f"{name}.json", to_json(values, indent=2) + "\n")


def read_run(workdir: Path) -> RunFolder:
    """Return the run in a folder, by the record of its last checkpoint.

    Raises:
      UserError: it is not a run, has no checkpoint, or was imported.
    """
    last = read_checkpoint(workdir, "last")
    record = last.record
    if "imported_from" in record["dataset"]:
        raise UserError(f"{workdir} was imported: there are no metrics of its training")
    versions = record["versions"]
    run = RunFolder(user_path(workdir), last.config, record["dataset"], versions)
    if run.newest is None:
        return run
    step, evaluation = run.newest
    shape: tuple[int, ...] = len(evaluation.target_returns), len(evaluation.seeds)
    if len(run.seeds) > 1:
        shape = len(run.seeds), *shape
    for array in (evaluation.returns, evaluation.lengths, evaluation.normalized_scores):
        if array is not None and array.shape != shape:
            path = run.workdir / "eval" / f"{step}.npz"
            raise UserError(f"{path} is not an evaluation of this run: remove it")
    return run


def read_checkpoint(workdir: str | Path, which: str | int) -> Checkpoint:
    """Return a checkpoint of the run in `workdir`; see `choose_checkpoint`.

    Raises:
      UserError: it is not a run, or has no such checkpoint.
    """
    folder = user_path(workdir)
    if not (folder / "checkpoints").exists():
        inside = sorted(path.parent.name for path in folder.glob("*/checkpoints"))
        if inside:
            these = f"{inside[0]}{', ...' if len(inside) > 1 else ''}"
            raise UserError(
                f"{workdir} has no checkpoint, only runs in it ({these}): choose one "
                "of them, or complete this run"
            )
        raise UserError(f"no {folder / 'checkpoints'}: is {workdir} a run's folder?")
    return choose_checkpoint(folder / "checkpoints", which)
