"""A run's folder, read back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dt_jax.across_seeds import Curve
from dt_jax.config import from_json, validate
from dt_jax.errors import UserError
from dt_jax.files import user_path
from dt_jax.metrics import read_metrics


@dataclass(frozen=True, eq=False)
class Run:
    """What a run's folder says of it; its episodes are left to `dt_jax.evaluation`.

    Attributes:
      workdir: the folder.
      config: as it ran.
      dataset: the identity of its data.
      rows: of metrics.jsonl.
      versions: with what it was made, as far as that is known.
    """

    workdir: Path
    config: ConfigDict
    dataset: Mapping[str, Any]
    rows: list[dict[str, Any]]
    versions: Mapping[str, Any]

    @property
    def seeds(self) -> range:
        """The S seeds of training."""
        first = self.config.train_seed
        return range(first, first + self.config.num_seeds)

    @property
    def step(self) -> int:
        """Updates that the log tells of."""
        return self.rows[-1]["step"] if self.rows else 0

    @property
    def is_complete(self) -> bool:
        """Whether all updates are done."""
        return bool(self.step >= self.config.update_steps)

    def curve(self, metric: str) -> Curve:
        """Return a metric over the updates, of each seed; T may be 0.

        Raises:
          UserError: something else than a number stands in its place.
        """
        names = [metric]
        if len(self.seeds) > 1:
            names = [f"seed_{seed}/{metric}" for seed in self.seeds]
        rows = [row for row in self.rows if names[0] in row]
        try:
            steps = np.array([row["step"] for row in rows], np.int64)
            values = np.array([[row[name] for row in rows] for name in names], float)
        except (KeyError, OverflowError, TypeError, ValueError):
            raise UserError(
                f"{self.workdir / 'metrics.jsonl'}: {metric} is not a number for each "
                "seed; remove those lines"
            ) from None
        return Curve(steps, values)


def recorded(
    workdir: Path, config: ConfigDict, dataset: Mapping[str, Any], **versions: Any
) -> Run:
    """Return the run in `workdir`, of which the rest is known."""
    return Run(
        workdir, config, dataset, read_metrics(workdir / "metrics.jsonl"), versions
    )


def read(workdir: Path) -> Run:
    """Return what the folder of a run says of it.

    Raises:
      UserError: it is none, or was written by another version.
    """
    config = read_config(workdir)
    path = user_path(workdir) / "versions.json"
    try:
        versions = json.loads(path.read_text(errors="replace"))
        dataset = versions.pop("dataset")
        _check(dataset)
    except FileNotFoundError:
        raise UserError(
            f"no {path}: the run has not begun, or it was removed"
        ) from None
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError):
        raise UserError(f"{path} does not tell the run's data: restore it") from None
    return recorded(user_path(workdir), config, dataset, **versions)


def read_config(workdir: Path) -> ConfigDict:
    """Return the configuration of the run in `workdir`.

    Raises:
      UserError: there is none, or it was written by another version.
    """
    path = user_path(workdir) / "config.json"
    if not path.is_file():
        raise UserError(f"no {path}: is {workdir} the folder of a run?")
    try:
        config = from_json(path.read_text(errors="replace"))
        validate(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config


def _check(dataset: dict[str, Any]) -> None:
    """Raise what `read` catches unless this is what `Dataset.identity` returns."""
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
