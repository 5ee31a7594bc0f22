"""What a run's folder says of the run: written, and read back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dt_jax.config.config import from_json, to_json, validate
from dt_jax.runs.aggregate import Curve
from dt_jax.runs.evaluations import Evaluation, last_evaluation
from dt_jax.runs.metrics import read_metrics
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import user_path, write_text


@dataclass(frozen=True, eq=False)
class Run:
    """What a run's folder says of it.

    Attributes:
      workdir: the folder.
      config: as it ran.
      dataset: the identity of its data.
      versions: with what it was made, as far as that is known.
      rows: of metrics.jsonl.
      newest: the step and the episodes of the newest evaluation, if any were played.
    """

    workdir: Path
    config: ConfigDict
    dataset: Mapping[str, Any]
    versions: Mapping[str, Any]
    rows: list[dict[str, Any]]
    newest: tuple[int, Evaluation] | None

    @property
    def seeds(self) -> range:
        """The S seeds of training."""
        first = self.config.train_seed
        return range(first, first + self.config.num_seeds)

    def curve(self, metric: str) -> Curve:
        """Return a metric over the updates, of each seed; T may be 0."""
        if len(self.seeds) == 1:
            return self.shared(metric)
        return self._numbers([f"seed_{seed}/{metric}" for seed in self.seeds])

    def shared(self, metric: str) -> Curve:
        """Return a metric that all seeds have in common, as if of one; see `curve`."""
        return self._numbers([metric])

    def _numbers(self, names: list[str]) -> Curve:
        rows = [row for row in self.rows if all(name in row for name in names)]
        return Curve(
            np.array([row["step"] for row in rows], np.int64),
            np.array([[row[name] for row in rows] for name in names], np.float64),
        )


def describe(workdir: Path, config: ConfigDict, about: Mapping[str, Any]) -> None:
    """Write what a run is.

    Args:
      workdir: its folder, made if it is not there.
      config: as it runs.
      about: with what it is made, and the identity of its data as "dataset".
    """
    workdir.mkdir(parents=True, exist_ok=True)
    write_text(workdir / "config.json", to_json(config))
    write_text(workdir / "versions.json", json.dumps(about, indent=2) + "\n")


def recorded(
    workdir: Path,
    config: ConfigDict,
    dataset: Mapping[str, Any],
    versions: Mapping[str, Any] | None = None,
) -> Run:
    """Return the run in `workdir`, of which the rest is known."""
    rows = read_metrics(workdir / "metrics.jsonl")
    return Run(workdir, config, dataset, versions or {}, rows, last_evaluation(workdir))


def read(workdir: Path) -> Run:
    """Return what the folder of a run says of it.

    Raises:
      UserError: it is none, it was written by another version, or is damaged.
    """
    config = read_config(workdir)
    workdir = user_path(workdir)
    versions = _read_versions(workdir / "versions.json")
    run = recorded(workdir, config, versions.pop("dataset"), versions)
    _check_rows(run)
    _check_episodes(run)
    return run


def read_config(workdir: Path) -> ConfigDict:
    """Return the configuration of the run in `workdir`.

    Raises:
      UserError: there is none, or it was written by another version.
    """
    path = user_path(workdir) / "config.json"
    if not path.is_file():
        if any(path.parent.glob("*/config.json")):
            raise UserError(f"{workdir} is a folder of runs: name one in it")
        raise UserError(f"no {path}: is {workdir} the folder of a run?")
    try:
        config = from_json(path.read_text(errors="replace"))
        validate(config, trains=False)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config


def _read_versions(path: Path) -> dict[str, Any]:
    """Return what versions.json holds, with an identity that can be relied on."""
    try:
        versions: dict[str, Any] = json.loads(path.read_text(errors="replace"))
        if "imported_from" in versions["dataset"]:
            raise UserError(f"{path.parent} was imported: it tells of no training")
        _check_dataset(versions["dataset"])
    except FileNotFoundError:
        raise UserError(f"no {path}: restore it, or start the run again") from None
    except (LookupError, OverflowError, RecursionError, TypeError, ValueError):
        raise UserError(f"{path} does not tell the run's data: restore it") from None
    return versions


def _check_dataset(dataset: dict[str, Any]) -> None:
    """Raise what is caught above unless this is what `Dataset.identity` returned."""
    if not all(isinstance(dataset[key], str) for key in ("source", "sha256")):
        raise TypeError
    for key in ("return_mean", "return_best"):
        dataset[key] = float(dataset[key])
    if (histogram := dataset.get("return_histogram")) is not None:
        counts = np.array(histogram["counts"], float)
        edges = np.array(histogram["edges"], float)
        if counts.ndim != 1 or edges.shape != (len(counts) + 1,):
            raise ValueError
        if not (np.isfinite(counts).all() and np.isfinite(edges).all()):
            raise ValueError


def _check_rows(run: Run) -> None:
    """Raise a UserError unless the log has numbers alone, its steps in order."""
    before = -1
    for row in run.rows:
        if not (all(map(_is_number, row.values())) and before < row["step"]):
            raise UserError(
                f"{run.workdir / 'metrics.jsonl'}: the row of step {row['step']} "
                "is not in its place, or has more than numbers; remove that line"
            )
        before = row["step"]


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _check_episodes(run: Run) -> None:
    """Raise a UserError unless the newest evaluation is one of that run."""
    if run.newest is None:
        return
    step, evaluation = run.newest
    shape: tuple[int, ...] = (len(evaluation.target_returns), len(evaluation.seeds))
    if len(run.seeds) > 1:
        shape = len(run.seeds), *shape
    arrays = [evaluation.returns, evaluation.lengths]
    if evaluation.normalized_scores is not None:
        arrays.append(evaluation.normalized_scores)
    if any(array.shape != shape or array.dtype.kind not in "iuf" for array in arrays):
        path = run.workdir / "eval" / f"{step}.npz"
        raise UserError(f"{path} is no evaluation of this run: remove it")
