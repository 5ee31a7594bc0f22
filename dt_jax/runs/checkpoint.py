"""Checkpoints by Orbax; each counts once its manifest is written.

    checkpoints/1000/      params and the rest of the training state, by Orbax
    checkpoints/1000.json  the manifest with the record, see `dt_jax.runs.manifest`

The manifest is written last, so that whatever a killed run leaves reads as absent. The
record holds what the parameters mean nothing without: configuration, normaliser, the
dataset's identity and the versions of the software. It is the one truth about a run;
the run's other JSON files are copies for people.
"""

import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from dt_jax.config.load import from_dict
from dt_jax.data.normalizer import Normalizer
from dt_jax.runs import manifest
from dt_jax.runs.manifest import Manifest
from dt_jax.utils import distributed
from dt_jax.utils.errors import UserError

_POLL_SECONDS = 0.01  # between two looks at a save that all processes wait for


@dataclass(frozen=True)
class Checkpoint:
    """A valid checkpoint on disk."""

    folder: Path  # the run's folder of checkpoints
    step: int  # updates completed
    score: float | None  # of the evaluation at this step, the higher the better
    record: dict[str, Any]  # what the parameters mean nothing without

    @property
    def config(self) -> ConfigDict:
        """The run's configuration, locked; a UserError if a value is not valid."""
        with self._named_in_errors():
            return from_dict(self.record["config"])

    @property
    def normalizer(self) -> Normalizer:
        """The units of the parameters; a UserError if they are not valid."""
        with self._named_in_errors():
            return Normalizer.from_record(self.record["normalizer"])

    @contextmanager
    def _named_in_errors(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            raise UserError(f"{self._path}: {error}") from None

    @property
    def _path(self) -> Path:
        return self.folder / str(self.step)

    def params(self, like: Any) -> Any:
        """Return the acting parameters, shaped as `like` (by jax.eval_shape).

        They are placed by the shardings of `like`, or on this process's first device.
        """
        saved = ocp.StandardCheckpointHandler().metadata(self._path / "params").tree
        expected = jax.tree.map(_stored, like)
        if _shapes(saved) != _shapes(expected):  # about which Orbax prints pages
            raise self._other_arrays()
        return self._restore(params=_placed(like))["params"]

    def train(self, like: Any) -> Any:
        """Return the rest of the training state, shaped and placed as `like`."""
        return self._restore(train=_placed(like))["train"]

    def _restore(self, **items: ocp.args.CheckpointArgs) -> Any:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            try:
                return checkpointer.restore(
                    self._path, args=ocp.args.Composite(**items)
                )
            except ValueError as error:
                raise self._other_arrays() from error

    def _other_arrays(self) -> UserError:
        return UserError(
            f"{self._path} does not hold the arrays of its configuration: restore the "
            "folder, or choose another checkpoint"
        )


class CheckpointWriter:
    """Saves in the background, and retains the last few checkpoints and the best.

    Of several processes each writes its shards, and the main process the rest.

    A context manager: leaving it waits for the save in progress.
    """

    def __init__(self, folder: Path, keep: int):
        """Open a folder for a run that resumes from its newest valid checkpoint.

        Args:
          folder: created if missing; checkpoints without a valid manifest are deleted,
            and those that a killed run did not come to delete.
          keep: how many of the newest to retain.
        """
        self._folder, self._keep = folder.resolve(), keep
        self._scores: dict[int, float | None] = {}
        with distributed.all_succeed():
            if distributed.is_main_process():
                self._delete_leftovers()
                self._delete_superfluous()
        self._manager = ocp.CheckpointManager(self._folder)  # retains all
        self._pending: tuple[int, Manifest] | None = None
        self._last = (-1, Manifest(None, {}))

    def _delete_leftovers(self) -> None:
        """Delete what has no valid manifest."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._scores = {
            checkpoint.step: checkpoint.score
            for checkpoint in find_checkpoints(self._folder)
        }
        if not self._scores:  # see `is_unsaved`
            manifest.unfinished(self._folder, 0).touch()
        kept = self._scores.keys() or {0}
        # *.unfinished last: while it exists, the checkpoint beside it does not count.
        for path in sorted(
            self._folder.iterdir(), key=lambda p: p.suffix == ".unfinished"
        ):
            step, _, kind = path.name.partition(".")
            ours = kind in ("", "json", "unfinished") or kind.startswith("orbax")
            if step.isdecimal() and int(step) not in kept and ours:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def save(
        self, step: int, params: Any, train: Any, record: dict, score: float | None
    ) -> None:
        """Start a save; the arrays may change as soon as this returns.

        Args:
          step: updates completed.
          params: the acting parameters.
          train: the rest of the training state.
          record: JSON values.
          score: of this step's evaluation, if there was one.
        """
        self.wait()
        if distributed.is_main_process():
            manifest.unfinished(self._folder, step).touch()
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(params), train=ocp.args.StandardSave(train)
            ),
            force=True,  # Orbax has its own policy of when to save
        )
        self._pending = step, Manifest(score, record)

    def poll(self) -> None:
        """Write the manifest of a save that has ended; never blocks."""
        if self._pending and not self._manager.is_saving_in_progress():
            self._finish()

    def wait(self) -> None:
        """Wait for the save in progress, and write its manifest.

        All processes call this at the same step, and wait for each other.

        Raises:
          UserError: it failed.
        """
        # Orbax would wait forever for a lost process; a collective fails at once.
        while jax.process_count() > 1 and int(distributed.maximum(self._is_saving())):
            time.sleep(_POLL_SECONDS)
        self._finish()

    def _is_saving(self) -> bool:
        return self._pending is not None and self._manager.is_saving_in_progress()

    def _finish(self) -> None:
        if self._pending is None:
            return
        (step, content), self._pending = self._pending, None
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # TensorStore raises ValueErrors of many lines
            full = shutil.disk_usage(self._folder).free < 1 << 20
            why = "no space left on the disk" if full else str(error)[:200]
            raise UserError(
                f"the checkpoint of step {step} could not be saved in {self._folder}: "
                f"{why}"
            ) from error
        self._last = step, content
        if distributed.is_main_process():
            self._write_manifest(step, content)
            for each in (0, step):
                manifest.unfinished(self._folder, each).unlink(missing_ok=True)
            self._delete_superfluous()

    def set_score(self, step: int, score: float | None) -> None:
        """Add the score to the last checkpoint, saved before its evaluation."""
        self.wait()
        if self._last[0] != step:  # it was restored, not saved, by this writer
            (found,) = [c for c in find_checkpoints(self._folder) if c.step == step]
            self._last = step, Manifest(found.score, found.record)
        if distributed.is_main_process():
            self._write_manifest(step, self._last[1]._replace(score=score))

    def _write_manifest(self, step: int, content: Manifest) -> None:
        manifest.write(self._folder, step, content)
        self._scores[step] = content.score

    def _delete_superfluous(self) -> None:
        """Delete the checkpoints that are neither among the last few nor the best."""
        retained = set(sorted(self._scores)[-self._keep :])
        scored = [(s, step) for step, s in self._scores.items() if s is not None]
        retained |= {max(scored)[1]} if scored else set()
        for step in self._scores.keys() - retained:
            self._delete(step)

    def _delete(self, step: int) -> None:
        manifest.unfinished(self._folder, step).touch()
        (self._folder / f"{step}.json").unlink(missing_ok=True)
        # Orbax's own deletion would wait for the other processes.
        shutil.rmtree(self._folder / str(step), ignore_errors=True)
        if not (self._folder / str(step)).exists():  # else at the next start
            manifest.unfinished(self._folder, step).unlink()
        del self._scores[step]

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: object
    ) -> None:
        if jax.process_count() > 1 and distributed.is_peer_lost(error):
            return  # the save would wait for the lost process
        if error is None:
            self.wait()
        else:  # perhaps only in this process
            self._finish()
        self._manager.close()


def find_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the valid checkpoints of `folder`, the newest last.

    Unfinished ones are ignored; damaged ones are left out with a warning.
    """
    found = []
    for step in sorted(manifest.finished_steps(folder)):
        try:
            content = manifest.read(folder, step)
            found.append(Checkpoint(folder.resolve(), step, *content))
        except (manifest.DamagedError, FileNotFoundError) as error:
            if step in manifest.finished_steps(folder):  # else the run deletes it
                message = f"{folder / str(step)} is corrupt and not used: {error}"
                warnings.warn(message, stacklevel=1)
    return found


def choose_checkpoint(folder: Path, which: str | int) -> Checkpoint:
    """Return the "last" or the "best" checkpoint, or the one of a step.

    The best has the highest mean return over the target returns, or where no
    environment is evaluated the lowest held-out error: it is selected on the test, so
    that its score cannot be compared with a last checkpoint's.

    Raises:
      UserError: `folder` has no such checkpoint.
    """
    found = find_checkpoints(folder)
    steps = ", ".join(str(checkpoint.step) for checkpoint in found)
    if not folder.is_dir():
        raise UserError(f"no checkpoint in {folder}: is it the folder of a run?")
    if not found and has_checkpoints(folder):
        raise UserError(f"every checkpoint in {folder} is corrupt: restore one")
    if not found:
        raise UserError(f"{folder.parent} has no checkpoint yet: train until its first")
    if which == "last":
        return found[-1]
    if which == "best":
        scored = [c for c in found if c.score is not None]
        if not scored:
            raise UserError(
                f"no checkpoint in {folder} was evaluated: choose last, or a step: "
                f"{steps}"
            )
        return max(scored, key=lambda c: (c.score, c.step))
    for checkpoint in found:
        if str(checkpoint.step) == str(which):
            return checkpoint
    raise UserError(
        f"no checkpoint {which!r} in {folder}; there are: last, best, {steps}"
    )


def has_checkpoints(folder: Path) -> bool:
    """Return whether `folder` has a finished checkpoint, valid or not."""
    return bool(manifest.finished_steps(folder))


def is_unsaved(folder: Path) -> bool:
    """Return whether a run has started in `folder` and not finished a checkpoint yet.

    False also for a folder whose checkpoints were deleted by hand.
    """
    return manifest.unfinished(folder, 0).exists()


def _shapes(tree: Any) -> list[tuple[int, ...]]:
    """Return the shapes of the arrays of a tree, in no order that depends on names."""
    return sorted(tuple(leaf.shape) for leaf in jax.tree.leaves(tree))


def _stored(x: Any) -> Any:
    """Return an array's shape on disk, where random keys are integers."""
    if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return jax.eval_shape(jax.random.key_data, x)


def _placed(like: Any) -> ocp.args.StandardRestore:
    """Request arrays placed as `like`, wherever they were when they were saved."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return ocp.args.StandardRestore(
        jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=x.sharding or here
            ),
            like,
        )
    )
