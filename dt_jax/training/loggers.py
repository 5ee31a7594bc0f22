"""Where a run's metrics go beside metrics.jsonl: TensorBoard, Weights & Biases.

They are extras: one that fails is told of in one line, and the run goes on without it.
"""

import os
import secrets
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ml_collections import ConfigDict

from dt_jax.utils import distributed
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import write_text

_INIT_SECONDS = 15.0  # that wandb may look for its server
_FINISH_SECONDS = 30.0  # that it may still send at the end

Metrics = Mapping[str, float]


class Logger(Protocol):
    """What takes a run's metrics; any error of its own may come out of it."""

    def write(self, step: int, metrics: Metrics) -> None:
        """Take the metrics of a step; steps ascend."""

    def close(self) -> None:
        """Finish what is under way."""


class Loggers:
    """The loggers that a configuration names, each until it fails.

    Of several processes the first has them.

    Args:
      config: the run's.
      workdir: its folder; each logger has one of its own in it.
      up_to_step: what an interrupted run has logged after it will come again.
    """

    def __init__(self, config: ConfigDict, workdir: Path, up_to_step: int):
        self._loggers: dict[str, Logger] = {}
        for name in config.loggers if distributed.leads() else ():
            try:
                self._loggers[name] = _LOGGERS[name](config, workdir, up_to_step)
            except Exception as error:  # whatever a package may raise
                _tell(name, error)

    def write(self, step: int, metrics: Metrics) -> None:
        """Give all of them the metrics of a step."""
        for name, logger in [*self._loggers.items()]:
            try:
                logger.write(step, metrics)
            except Exception as error:
                _tell(name, error)
                del self._loggers[name]
                with suppress(Exception):  # it has been told that this one fails
                    logger.close()

    def __enter__(self) -> "Loggers":
        return self

    def __exit__(self, *exception: object) -> None:
        for name, logger in self._loggers.items():
            try:
                logger.close()
            except Exception as error:
                _tell(name, error)


def check_installed(names: Iterable[str]) -> None:
    """Raise a UserError if a logger's package is missing."""
    for name in names:
        package = _PACKAGES[name]
        if find_spec(package) is None:
            raise UserError(
                f"config.loggers={name} needs {package}, which is not installed: "
                f"pip install 'dt_jax[{name}]', or leave {name} out"
            )


def _tell(name: str, error: Exception) -> None:
    why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    warnings.warn(
        f"the logger {name} has failed ({why}); the run goes on without it, and "
        "metrics.jsonl has all metrics",
        stacklevel=3,
    )


class TensorBoard:
    """An event file in `<workdir>/tensorboard/` for each start of the run.

    TensorBoard hides what earlier files have of the steps after `up_to_step`.
    """

    def __init__(self, config: ConfigDict, workdir: Path, up_to_step: int):
        # tensorboardX's SummaryWriter writes in a thread; should that fail, its queue
        # fills up and blocks the run. These are the parts that it is made of.
        self._event_pb2 = import_module("tensorboardX.proto.event_pb2")
        self._summary_pb2 = import_module("tensorboardX.proto.summary_pb2")
        folder = workdir / "tensorboard"
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
        record_writer = import_module("tensorboardX.record_writer")
        self._file = record_writer.RecordWriter(str(folder / name))
        self._add(file_version="brain.Event:2")
        log = self._event_pb2.SessionLog
        self._add(step=up_to_step + 1, session_log=log(status=log.START))

    def write(self, step: int, metrics: Metrics) -> None:
        """Append the metrics as scalars, on disk when this returns."""
        summary = self._summary_pb2.Summary
        values = [summary.Value(tag=k, simple_value=v) for k, v in metrics.items()]
        self._add(step=step, summary=summary(value=values))

    def _add(self, **what: Any) -> None:
        event = self._event_pb2.Event(wall_time=time.time(), **what)
        self._file.write(event.SerializeToString())
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class WeightsAndBiases:
    """A run of Weights & Biases, with its files in `<workdir>/wandb/`.

    Its identity is kept there, so that a run which goes on is one run for wandb too.
    Without an API key or the server, the files wait to be sent by `wandb sync`.
    """

    def __init__(self, config: ConfigDict, workdir: Path, up_to_step: int):
        # It reports on itself to its makers, from threads in this process.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._wandb = import_module("wandb")
        about = {
            "project": config.project,
            "group": config.group,
            "name": config.name,
            "config": config.to_dict(),
            "dir": str(workdir),
            "id": _kept_id(workdir / "wandb" / "run_id"),
            "resume": "allow",
        }
        try:
            self._run = self._init(about)
        except self._wandb.errors.Error as error:
            self._wandb.teardown()  # of the attempt, which holds the id
            self._run = self._init(about | {"mode": "offline"})
            why = str(error).partition("\n")[0].rstrip(".")
            print(
                f"wandb: {why}: the metrics are kept, to be sent by "
                f"wandb sync {Path(self._run.dir).parent}"
            )
        # Of a run that goes on its server has some rows already.
        self._next = self._run.step

    def _init(self, about: dict[str, Any]) -> Any:
        """Begin the run without a question or a line of wandb's own."""
        settings = {
            "silent": True,
            "console": "off",
            "disable_code": True,
            "disable_git": True,
            "disable_job_creation": True,
            "init_timeout": _INIT_SECONDS,
            "finish_timeout": _FINISH_SECONDS,
            "finish_timeout_raises": True,
        }
        self._wandb.setup(self._wandb.Settings(silent=True))  # before it asks for a key
        return self._wandb.init(
            **about, allow_val_change=True, settings=self._wandb.Settings(**settings)
        )

    def write(self, step: int, metrics: Metrics) -> None:
        """Hand the metrics to wandb's own process, which sends them when it can."""
        if step >= self._next:
            self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Wait for what is still to be sent, and end wandb's process."""
        try:
            self._run.finish()
        finally:
            self._wandb.teardown()


def _kept_id(file: Path) -> str:
    """Return what `file` says, written on first use."""
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        write_text(file, secrets.token_hex(4))
    return file.read_text()


_LOGGERS: dict[str, Callable[[ConfigDict, Path, int], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
