"""Checkpoints by Orbax, each of which counts once its manifest is written.

    checkpoints/1000/        params, train (step, optimiser, key) and record, by Orbax
    checkpoints/1000.json    the manifest: the sha256 of each of those files

The manifest comes last, so that whatever a killed run leaves behind reads as absent.
The record holds what the parameters mean nothing without: config, state mean and std,
units of actions, the dataset's identity and the version of this format.
"""

import hashlib
import json
import logging
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from dt_jax.errors import UserError
from dt_jax.files import write_text

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint on disk."""

    folder: Path
    step: int
    score: float | None  # of the evaluation at this step, the higher the better

    def record(self) -> dict[str, Any]:
        """Return the record that was saved with the parameters.

        Raises:
          UserError: it is of another format.
        """
        record = self._restore(record=ocp.args.JsonRestore())["record"]
        if record["format_version"] != FORMAT_VERSION:
            raise UserError(
                f"{self.folder / str(self.step)} has checkpoint format "
                f"{record['format_version']}; this version of dt_jax reads "
                f"{FORMAT_VERSION}"
            )
        return record

    def params(self, like: Any) -> Any:
        """Return the parameters, shaped as `like` (jax.eval_shape's)."""
        return self._restore(params=_on_first_device(like))["params"]

    def train(self, like: Any) -> Any:
        """Return the rest of the training state, shaped as `like`."""
        return self._restore(train=_on_first_device(like))["train"]

    def _restore(self, **items: ocp.args.CheckpointArgs) -> Any:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(
                self.folder / str(self.step), args=ocp.args.Composite(**items)
            )


class CheckpointWriter:
    """Saves in the background; keeps the last few checkpoints and the best one.

    A context manager: leaving it waits for the save under way.
    """

    def __init__(self, folder: Path, keep: int):
        """Open `folder` for a run that goes on from its newest whole checkpoint.

        Args:
          folder: made if it is not there; what no manifest vouches for is removed.
          keep: how many of the newest to keep, at least 2: the newest does not count
            before its manifest is written.
        """
        # Orbax tells of every save; of one that fails, `confirm` does.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._folder = folder.resolve()
        self._folder.mkdir(parents=True, exist_ok=True)
        whole = {str(checkpoint.step) for checkpoint in find(folder)}
        for path in self._folder.glob("[0-9]*"):  # and nothing that is not ours
            step, dot, rest = path.name.partition(".")
            ours = step.isdecimal() and (not dot or rest.startswith("orbax"))
            if path.is_dir() and ours and path.name not in whole:
                shutil.rmtree(path)
        newest = checkpoint_managers.LatestN(keep)
        best = checkpoint_managers.BestN(
            get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
        )
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                best_fn=_score,  # else Orbax forgets the scores when a run goes on
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                    [newest, best]
                ),
            ),
        )
        self._unconfirmed: tuple[int, float | None] | None = None

    def save(
        self, step: int, params: Any, train: Any, record: dict, score: float | None
    ) -> None:
        """Begin to save; the arrays may change as soon as this returns.

        Args:
          step: updates completed.
          params: the network's parameters.
          train: whatever else training goes on from.
          record: JSON-able; the format's version is added.
          score: by which the best checkpoint is chosen, if there was an evaluation.
        """
        self.confirm()
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(params),
                train=ocp.args.StandardSave(train),
                record=ocp.args.JsonSave(record | {"format_version": FORMAT_VERSION}),
            ),
            metrics=None if score is None else {"score": score},
        )
        self._unconfirmed = (step, score)

    def poll(self) -> None:
        """Write the manifest of a save that has ended; return at once otherwise."""
        if self._unconfirmed and not self._manager.is_saving_in_progress():
            self.confirm()

    def confirm(self) -> None:
        """Wait for the save under way, and write its manifest."""
        if self._unconfirmed is None:
            return
        step, score = self._unconfirmed
        self._unconfirmed = None
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # TensorStore's are ValueErrors, of many lines
            raise UserError(_failed(self._folder, step, error)) from error
        manifest = {"step": step, "score": score, "files": _hashes(self._folder, step)}
        write_text(self._folder / f"{step}.json", json.dumps(manifest, indent=1))
        for path in manifests(self._folder):  # of what Orbax has deleted since
            if not (self._folder / path.stem).is_dir():
                path.unlink()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.confirm()
        self._manager.close()


def find(folder: Path) -> list[Checkpoint]:
    """Return the whole checkpoints of `folder`, the newest last.

    A folder without a manifest is no checkpoint yet; one whose files are not those of
    its manifest is warned about and left out.
    """
    found = []
    for path in manifests(folder):
        step = int(path.stem)
        try:
            manifest = json.loads(path.read_text())
            if manifest["files"] == _hashes(folder, step):
                found.append(Checkpoint(folder.resolve(), step, manifest["score"]))
                continue
        except (ValueError, TypeError, KeyError):
            why = "its manifest can't be read"
        except FileNotFoundError:  # being deleted by a run that goes on meanwhile
            continue
        else:
            why = "its files are not those that were saved"
        if (folder / path.stem).is_dir():
            warnings.warn(f"{folder / path.stem} is not used: {why}", stacklevel=1)
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def choose(folder: Path, which: str | int) -> Checkpoint:
    """Return the "last" or the "best" checkpoint, or the one of a step.

    The best one has the highest mean return over the target returns, or where nothing
    is played the least held-out error: a choice made on the test, so its score is not
    comparable with a last one's.

    Raises:
      UserError: `folder` holds no such checkpoint.
    """
    found = find(folder)
    steps = ", ".join(str(checkpoint.step) for checkpoint in found)
    if not found:
        raise UserError(_none_whole(folder))
    if which == "last":
        return found[-1]
    if which == "best":
        scored = [c for c in found if c.score is not None]
        if not scored:
            raise UserError(
                f"no checkpoint in {folder} was made at an evaluation: choose last, or "
                f"a step: {steps}"
            )
        return max(scored, key=lambda c: (c.score, c.step))
    for checkpoint in found:
        if str(checkpoint.step) == str(which):
            return checkpoint
    raise UserError(
        f"no checkpoint {which!r} in {folder}; there are: last, best, {steps}"
    )


def manifests(folder: Path) -> list[Path]:
    """Return the files that vouch for a checkpoint, whether it is whole or not."""
    return [path for path in folder.glob("*.json") if path.stem.isdecimal()]


def _none_whole(folder: Path) -> str:
    """Return the one line about a folder without a whole checkpoint."""
    if not folder.is_dir():
        return f"no checkpoint in {folder}: is it the folder of a run?"
    none = f"{folder.parent} is a run, but none of its checkpoints is whole"
    if manifests(folder):
        return f"{none} any more: restore one in {folder}, or name another run"
    return f"{none} yet: let it train on to its first one, or name another run"


def _failed(folder: Path, step: int, error: Exception) -> str:
    """Return the one line about a save that failed."""
    why = "no space left on the disk" if _is_full(folder) else str(error)[:200]
    return f"the checkpoint of step {step} could not be saved in {folder}: {why}"


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < 1 << 20


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


def _on_first_device(like: Any) -> ocp.args.StandardRestore:
    """Ask for arrays on this process's first device, wherever they were saved."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return ocp.args.StandardRestore(
        jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like
        )
    )


def _hashes(folder: Path, step: int) -> dict[str, str]:
    """Return the sha256 of each file of a checkpoint, by its path inside it."""
    top = folder / str(step)
    hashes = {}
    for path in sorted(p for p in top.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        hashes[str(path.relative_to(top))] = digest.hexdigest()
    return hashes
