"""Checkpoints by Orbax, each of which counts once its manifest is written.

    checkpoints/1000/      params, train (step, optimiser, key) and record, by Orbax
    checkpoints/1000.json  the manifest, see `dt_jax.runs.manifest`

The manifest comes last, so that whatever a killed run leaves behind reads as absent.
The record holds what the parameters mean nothing without: config, state mean and std,
units of actions, the dataset's identity and the version of this format.
"""

import logging
import shutil
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from dt_jax.runs import manifest
from dt_jax.utils import distributed
from dt_jax.utils.errors import UserError

_PAUSE_SECONDS = 0.01  # between two looks at a save that all processes wait for


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
        if (found := record["format_version"]) not in manifest.READABLE:
            theirs = record.get("versions", {}).get("dt_jax", "another version")
            raise UserError(
                f"{self.folder / str(self.step)} has checkpoint format {found}, which "
                f"dt_jax {theirs} reads; this version reads formats "
                f"{' and '.join(map(str, manifest.READABLE))}"
            )
        return record

    def params(self, like: Any) -> Any:
        """Return the parameters, shaped as `like` (jax.eval_shape's).

        They are where the shardings of `like` say, or on this process's first device.
        """
        return self._restore(params=_placed(like))["params"]

    def train(self, like: Any) -> Any:
        """Return the rest of the training state, shaped and placed as `like`."""
        return self._restore(train=_placed(like))["train"]

    def _restore(self, **items: ocp.args.CheckpointArgs) -> Any:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(
                self.folder / str(self.step), args=ocp.args.Composite(**items)
            )


class CheckpointWriter:
    """Saves in the background; keeps the last few checkpoints and the best one.

    Of several processes each writes its part, and the first all the rest.

    A context manager: leaving it waits for the save under way.
    """

    def __init__(self, folder: Path, keep: int):
        """Open `folder` for a run that goes on from its newest whole checkpoint.

        Args:
          folder: made if it is not there; what no manifest vouches for is removed.
          keep: how many of the newest to keep; with 2, there is one to go back to
            where the newest is damaged.
        """
        # Orbax tells of every save; of one that fails, `confirm` does.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._folder, self._keep = folder.resolve(), keep
        self._scores: dict[int, float | None] = {}
        with distributed.all_or_none():
            if distributed.leads():
                self._tidy()
        self._manager = ocp.CheckpointManager(self._folder)  # keeps all
        self._unconfirmed: tuple[int, float | None] | None = None

    def _tidy(self) -> None:
        """Remove what no manifest vouches for."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._scores = {
            checkpoint.step: checkpoint.score for checkpoint in find(self._folder)
        }
        # Marks last: while one is there, what lies beside it counts as absent.
        for path in sorted(
            self._folder.iterdir(), key=lambda p: p.suffix == ".unfinished"
        ):
            if manifest.is_left_over(path, self._scores):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def save(
        self, step: int, params: Any, train: Any, record: dict, score: float | None
    ) -> None:
        """Begin to save; the arrays may change as soon as this returns.

        Args:
          step: updates completed.
          params: the network's parameters.
          train: whatever else training goes on from.
          record: JSON-able; the version of this format is added.
          score: by which the best checkpoint is chosen, if there was an evaluation.
        """
        self.confirm()
        if distributed.leads():
            manifest.unfinished(self._folder, step).touch()
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(params),
                train=ocp.args.StandardSave(train),
                record=ocp.args.JsonSave(
                    record | {"format_version": manifest.FORMAT_VERSION}
                ),
            ),
            force=True,  # it has its own idea of when to save
        )
        self._unconfirmed = (step, score)

    def poll(self) -> None:
        """Write the manifest of a save that has ended; return at once otherwise."""
        if self._unconfirmed and not self._manager.is_saving_in_progress():
            self._confirm()

    def confirm(self) -> None:
        """Wait for the save under way, and write its manifest.

        Of several processes all call this at the same step, and wait for each other.

        Raises:
          UserError: it failed.
        """
        # Orbax would wait in vain for a process that is gone; this fails at once.
        while jax.process_count() > 1 and int(distributed.largest(self._is_saving())):
            time.sleep(_PAUSE_SECONDS)
        self._confirm()

    def _is_saving(self) -> bool:
        return self._unconfirmed is not None and self._manager.is_saving_in_progress()

    def _confirm(self) -> None:
        if self._unconfirmed is None:
            return
        step, score = self._unconfirmed
        self._unconfirmed = None
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # TensorStore's are ValueErrors, of many lines
            raise UserError(_failed(self._folder, step, error)) from error
        if distributed.leads():
            self._vouch_for(step, score)
            manifest.unfinished(self._folder, step).unlink()
            for old in self._superfluous():
                self._delete(old)

    def rate(self, step: int, score: float | None) -> None:
        """Add the score to a checkpoint that was saved before its evaluation."""
        self.confirm()
        if distributed.leads():
            self._vouch_for(step, score)

    def _vouch_for(self, step: int, score: float | None) -> None:
        manifest.write(self._folder, step, score)
        self._scores[step] = score

    def _superfluous(self) -> list[int]:
        """Return the steps that are neither among the last few nor the best."""
        kept = set(sorted(self._scores)[-self._keep :])
        scored = [(s, step) for step, s in self._scores.items() if s is not None]
        kept |= {max(scored)[1]} if scored else set()
        return [step for step in self._scores if step not in kept]

    def _delete(self, step: int) -> None:
        manifest.unfinished(self._folder, step).touch()
        (self._folder / f"{step}.json").unlink(missing_ok=True)
        # Orbax's own would wait for the other processes.
        shutil.rmtree(self._folder / str(step), ignore_errors=True)
        if not (self._folder / str(step)).exists():  # else at the next start
            manifest.unfinished(self._folder, step).unlink()
        del self._scores[step]

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: object
    ) -> None:
        if jax.process_count() > 1 and distributed.may_be_alone(error):
            return  # the save would wait for the other
        if error is None:
            self.confirm()
        else:  # maybe this process's alone
            self._confirm()
        self._manager.close()


def find(folder: Path) -> list[Checkpoint]:
    """Return the whole checkpoints of `folder`, the newest last.

    One that isn't finished is none yet; one that is not as its manifest says, or has
    lost it, is warned about and left out.
    """
    found = []
    for step in sorted(manifest.finished(folder)):
        try:
            score = manifest.verified_score(folder, step)
        except FileNotFoundError:
            continue
        except manifest.DamagedError as error:
            if step in manifest.finished(folder):  # still
                why = f"{folder / str(step)} is not used: {error}"
                warnings.warn(why, stacklevel=1)
        else:
            found.append(Checkpoint(folder.resolve(), step, score))
    return found


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


def were_there(folder: Path) -> bool:
    """Tell whether a checkpoint was finished in `folder`, be it whole now or not."""
    return bool(manifest.finished(folder))


def _none_whole(folder: Path) -> str:
    """Return the one line about a folder without a whole checkpoint."""
    if not folder.is_dir():
        return f"no checkpoint in {folder}: is it the folder of a run?"
    none = f"{folder.parent} is a run, but none of its checkpoints is whole"
    if were_there(folder):
        return f"{none} any more: restore one in {folder}, or name another run"
    return f"{none} yet: let it train on to its first one, or name another run"


def _failed(folder: Path, step: int, error: Exception) -> str:
    """Return the one line about a save that failed."""
    why = "no space left on the disk" if _is_full(folder) else str(error)[:200]
    return f"the checkpoint of step {step} could not be saved in {folder}: {why}"


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < 1 << 20


def _placed(like: Any) -> ocp.args.StandardRestore:
    """Ask for arrays placed as `like`, wherever they were when they were saved."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return ocp.args.StandardRestore(
        jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=x.sharding or here
            ),
            like,
        )
    )
