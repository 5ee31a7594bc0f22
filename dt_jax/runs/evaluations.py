"""Evaluations of a run: episodes at several target returns, one .npz per step."""

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dt_jax.utils.errors import UserError
from dt_jax.utils.files import atomic_write, read_regular


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one evaluation, E for each of K target returns.

    With S seeds of training, returns, lengths and scores are [S, K, E].

    Attributes:
      target_returns: [K] float64; [NaN] for an agent without target returns.
      seeds: [E], the environment's seed of each episode, the same at every target.
      returns: [K, E] float32, achieved returns.
      lengths: [K, E] int32, environment steps.
      normalized_scores: [K, E], D4RL's score of each return; None where the returns
        that score 0 and 100 are unknown.
    """

    target_returns: np.ndarray
    seeds: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray
    normalized_scores: np.ndarray | None = None

    @property
    def score(self) -> float:
        """The mean return over all targets, by which checkpoints are compared.

        Normalised scores have the same order.
        """
        return float(self.returns.mean(dtype=np.float64))

    def select_seed(self, i: int) -> "Evaluation":
        """Return the episodes of the i-th seed of several."""
        scores = self.normalized_scores
        return replace(
            self,
            returns=self.returns[i],
            lengths=self.lengths[i],
            normalized_scores=None if scores is None else scores[i],
        )

    def metrics(self) -> dict[str, np.ndarray]:
        """Return means and standard deviations over episodes under CORL's names.

        They are numbers, or with several seeds [S].
        """
        arrays = {
            "return": self.returns,
            "normalized_score": self.normalized_scores,
            "length": self.lengths,
        }
        metrics = {}
        for k, target in enumerate(self.target_returns):
            prefix = "eval/" if np.isnan(target) else f"eval/{float(target)}_"
            for name, values in arrays.items():
                if values is not None:
                    metrics[f"{prefix}{name}_mean"] = values[..., k, :].mean(axis=-1)
                    metrics[f"{prefix}{name}_std"] = values[..., k, :].std(axis=-1)
        return metrics

    def save(self, path: Path) -> None:
        """Write every array to an .npz."""
        # Sorted: the end of a damaged archive may be missing, but not only the scores.
        arrays = {
            k: array for k, array in sorted(vars(self).items()) if array is not None
        }
        with atomic_write(path) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """Read what `save` has written.

        Raises:
          UserError: the file is damaged or something else.
        """
        file = io.BytesIO(read_regular(path))
        try:
            with np.load(file, allow_pickle=False) as arrays:
                evaluation = cls(**arrays)
            for name, array in vars(evaluation).items():
                if array is not None and (
                    not array.size or array.dtype.kind not in "iuf"
                ):
                    raise ValueError(f"{name} is not an array of numbers")
            if evaluation.target_returns.ndim != 1 or evaluation.seeds.ndim != 1:
                raise ValueError("more targets or seeds than one axis")
        except Exception as error:  # NumPy and zipfile raise a dozen kinds
            raise UserError(
                f"{path} is not a valid evaluation: remove it ({error})"
            ) from None
        return evaluation


def last_evaluation(workdir: Path) -> tuple[int, Evaluation] | None:
    """Return the step and the episodes of a run's newest evaluation, if any."""
    files = _files(workdir)
    step = max(files, default=-1)
    return (step, Evaluation.load(files[step])) if files else None


def delete_evaluations_after(step: int, workdir: Path) -> None:
    """Delete the evaluations of updates that a run resumed from `step` repeats."""
    for evaluated, path in _files(workdir).items():
        if evaluated > step:
            path.unlink()


def _files(workdir: Path) -> dict[int, Path]:
    """Return the files of a run's evaluations by their steps."""
    return {
        int(path.stem): path
        for path in (workdir / "eval").glob("*.npz")
        if path.stem.isdecimal()
    }
