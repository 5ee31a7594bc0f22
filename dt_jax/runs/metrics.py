"""A run's metrics: one JSON object a line, one line a step, and how far it has come."""

import json
import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from dt_jax.utils.errors import UserError
from dt_jax.utils.files import write_text


class MetricsLog:
    """The metrics.jsonl of a run, each line on disk as soon as it is written."""

    def __init__(self, path: Path | None, up_to_step: int):
        """Open the log; what an interrupted run wrote after `up_to_step` is dropped.

        Without a path nothing is kept: another process does that.
        """
        if path is None:
            self._file = TemporaryFile("w")  # noqa: SIM115 - closed by __exit__
            return
        kept = [row for row in read_metrics(path) if row["step"] <= up_to_step]
        write_text(path, "".join(map(_line, kept)))
        self._file = path.open("a")

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Append the metrics of a step."""
        self._file.write(_line({"step": step, **metrics}))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl, without a last line that was cut short."""
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        try:
            row = json.loads(line)
            rows.append({"step": int(row.pop("step")), **row})
        except Exception:  # JSON of any kind may stand there
            raise UserError(
                f"{path}, line {number}: not a row of metrics; remove that line"
            ) from None
    return rows


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"
