"""How long runs took, and on what."""

from typing import NamedTuple

import numpy as np

from dt_jax.runs.folder import RunFolder as Run
from dt_jax.utils.errors import printable


class Timing(NamedTuple):
    """What a run's log and versions.json tell of its time.

    Attributes:
      updates: as many as the log times.
      seconds: that they took, without evaluations and checkpoints.
      evaluating: seconds in evaluations; None where the log does not say.
      made_with: device, platform and versions.
    """

    updates: int
    seconds: float
    evaluating: float | None
    made_with: str

    @property
    def rate(self) -> float | None:
        """Updates a second; one of all seeds of the run counts once."""
        return self.updates / self.seconds if self.seconds else None


def timing_of(run: Run) -> Timing:
    """Return how long a run took."""
    rates, evaluations = run.shared("steps_per_second"), run.shared("eval/seconds")
    # A row's rate is that of the updates since the row before.
    every = np.array([0, *(row["step"] for row in run.rows)])
    before = every[np.searchsorted(every, rates.steps) - 1]
    updates, rate = rates.steps - before, rates.values[0]
    timed = rate > 0
    return Timing(
        updates=int(updates[timed].sum()),
        seconds=float((updates[timed] / rate[timed]).sum()),
        evaluating=float(evaluations.values.sum()) if evaluations.steps.size else None,
        made_with=_made_with(run),
    )


def _made_with(run: Run) -> str:
    known = run.versions
    revision = str(known.get("git_revision") or "")
    parts = [
        str(known.get("device") or "device not recorded"),
        str(known.get("platform") or ""),
        f"Python {known['python']}" if "python" in known else "",
        f"jax {known['jax']}" if "jax" in known else "",
        f"dt_jax {known.get('dt_jax') or ''} {revision[:10]}".strip(),
    ]
    return printable(", ".join(part for part in parts if part))
