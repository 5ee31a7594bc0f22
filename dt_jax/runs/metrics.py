"""metrics.jsonl: one JSON object per line, one line per logged step."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dt_jax.utils.errors import UserError
from dt_jax.utils.files import read_regular, to_json, write_text

TIMING = ("steps_per_second", "eval/seconds")  # metrics that no two runs share
HOLDOUT = "eval/holdout_"  # and what was measured on held-out trajectories


class MetricsLog:
    """The metrics.jsonl of a run; each line is on disk as soon as it is written."""

    def __init__(self, path: Path | None, up_to_step: int):
        """Open the log, and drop what an interrupted run wrote after `up_to_step`.

        With None as `path` nothing is kept: another process writes it.
        """
        self._file = None
        if path is not None:
            kept = [row for row in read_metrics(path) if row["step"] <= up_to_step]
            write_text(path, "".join(map(_line, kept)))
            self._file = path.open("a")

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Append the metrics of a step."""
        if self._file is not None:
            self._file.write(_line({"step": step, **metrics}))
            self._file.flush()
            os.fsync(self._file.fileno())

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()


def holdout_metric(rows: Iterable[Mapping[str, float]]) -> str:
    """Return the name of the metric of held-out trajectories; HOLDOUT without one."""
    names = (name for row in rows for name in row)
    return next((name for name in names if name.startswith(HOLDOUT)), HOLDOUT)


def holdout_words(name: str) -> str:
    """Return "action MSE" for "eval/holdout_action_mse"."""
    *words, kind = name.removeprefix(HOLDOUT).split("_")
    return " ".join([*words, kind.upper()])


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl, without a truncated last line.

    null, of a metric that was not finite, is read as NaN.

    Raises:
      UserError: a line is not a row of numbers.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(read_regular(path).split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
            row |= {name: math.nan for name in row if row[name] is None}
            if type(row["step"]) is not int or row["step"] < 0:
                raise ValueError(row)
            if not all(map(_is_number, row.values())):
                raise ValueError(row)
            rows.append(row)
        except Exception:  # any kind of JSON
            raise UserError(
                f"{path}, line {number}: not a row of metrics; remove that line"
            ) from None
    return rows


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _line(row: dict[str, Any]) -> str:
    return to_json(row) + "\n"
