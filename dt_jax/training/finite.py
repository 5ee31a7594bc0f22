"""Numbers that are not finite: noticed, and told with the step and its batch."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import optax

from dt_jax.data.sampler import Sampler
from dt_jax.types import Params
from dt_jax.utils import distributed
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import replacing


class FiniteCheck:
    """Looks at what a run's updates come to.

    Args:
      workdir: the run's folder.
      samplers: of the batches that the updates are made on, one for each seed.
    """

    def __init__(self, workdir: Path, samplers: Sequence[Sampler]):
        self._workdir, self._samplers = workdir, samplers
        self._norm = jax.jit(optax.tree.norm)

    def metrics(self, read: Mapping[str, np.ndarray], step: int) -> None:
        """Look at the metrics of updates, [n] or of S seeds [n, S], the last of `step`.

        Raises:
          UserError: a loss or a gradient is not finite. The batch of that update is
            written to the run's folder: its transitions [B], as `Sampler.gather` takes
            them, and their rows in the dataset; of S seeds [S, B].
        """
        loss, grad_norm = read["train_loss"], read["grad_norm"]
        bad = ~(np.isfinite(loss) & np.isfinite(grad_norm))
        if bad.any():
            where = np.unravel_index(bad.argmax(), bad.shape)
            first_bad = step - len(bad) + 1 + int(where[0])
            raise self._error(
                f"step {first_bad}: the loss is {loss[where]}, the gradient's norm "
                f"{grad_norm[where]} (the rows of its batch are in "
                f"{self._note(first_bad)})"
            )

    def params(self, params: Params, step: int) -> None:
        """Raise a UserError rather than let parameters be saved that are not finite."""
        if not math.isfinite(self._norm(params)):
            raise self._error(f"step {step}: a parameter is not finite any more")

    def _note(self, step: int) -> Path:
        """Write what the update of `step` was made on, to be looked at."""
        indices = np.stack([s.indices(step - 1) for s in self._samplers])
        indices = indices.squeeze(0) if len(indices) == 1 else indices
        path = self._workdir / f"not_finite_{step}.npz"
        rows = self._samplers[0].windows(indices).rows
        if distributed.leads():
            with replacing(path) as temporary:
                np.savez(temporary, step=step, indices=indices, rows=rows)
        return path

    def _error(self, what: str) -> UserError:
        return UserError(
            f"{what}; any checkpoints in {self._workdir} are from before "
            "it. A smaller learning_rate or clip_grad may help, in a new --workdir"
        )
