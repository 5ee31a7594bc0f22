"""Loggers besides metrics.jsonl: TensorBoard and Weights & Biases.

They are optional: if one fails, a warning says so and the run continues without it.
"""

import os
import secrets
import socket
import time
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

from ml_collections import ConfigDict

from dt_jax.utils import distributed
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import read_regular, write_text

_INIT_SECONDS = 15.0  # for wandb to find its server
_FINISH_SECONDS = 30.0  # for wandb to send what is left at the end

Metrics = Mapping[str, float]


class Loggers:
    """The loggers that a configuration names, each until it fails.

    Of several processes the main process has them. Each has a folder of its own in the
    run's. A resumed run logs everything after `up_to_step` again.
    """

    def __init__(self, config: ConfigDict, workdir: Path, up_to_step: int):
        self._loggers: dict[str, TensorBoard | WeightsAndBiases] = {}
        for name in config.loggers if distributed.is_main_process() else ():
            try:
                self._loggers[name] = _LOGGERS[name](config, workdir, up_to_step)
            except Exception as error:  # whatever a package may raise
                _warn(name, error)

    def write(self, step: int, metrics: Metrics) -> None:
        """Log the metrics of a step to all of them."""
        for name, logger in [*self._loggers.items()]:
            try:
                logger.write(step, metrics)
            except Exception as error:
                _warn(name, error)
                del self._loggers[name]
                with suppress(Exception):  # its failure is reported already
                    logger.close()

    def __enter__(self) -> "Loggers":
        return self

    def __exit__(self, *exception: object) -> None:
        for name, logger in self._loggers.items():
            try:
                logger.close()
            except Exception as error:
                _warn(name, error)


def check_installed(names: Iterable[str]) -> None:
    """Raise a UserError if a logger's package is missing."""
    for name in names:
        package = _PACKAGES[name]
        if find_spec(package) is None:
            raise UserError(
                f"config.loggers={name} needs {package}, which is not installed: "
                f"pip install 'dt_jax[{name}]', or leave {name} out"
            )


def _warn(name: str, error: Exception) -> None:
    why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    warnings.warn(
        f"the logger {name} failed ({why}); the run continues without it, and "
        "metrics.jsonl has all metrics",
        stacklevel=3,
    )


class TensorBoard:
    """Writes an event file in `<workdir>/tensorboard/` at each start of the run.

    TensorBoard hides the steps after `up_to_step` in earlier files.
    """

    def __init__(self, config: ConfigDict, workdir: Path, up_to_step: int):
        # tensorboardX's SummaryWriter writes in a thread; if that dies, as on a full
        # disk, its queue fills up and blocks the run. This uses its record writer.
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

    def _add(self, **content: Any) -> None:
        event = self._event_pb2.Event(wall_time=time.time(), **content)
        self._file.write(event.SerializeToString())
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class WeightsAndBiases:
    """Logs to a Weights & Biases run, with its files in `<workdir>/wandb/`.

    Its id is stored there, so that a resumed run is one run in wandb too. Without an
    API key or the server, the files wait for `wandb sync`.
    """

    def __init__(self, config: ConfigDict, workdir: Path, up_to_step: int):
        # wandb sends error reports about itself from threads in this process.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._wandb = import_module("wandb")
        arguments = {
            "project": config.project,
            "group": config.group,
            "name": config.name,
            "config": config.to_dict(),
            "dir": str(workdir),
            "id": _stored_id(workdir / "wandb" / "run_id"),
            "resume": "allow",
        }
        try:
            self._run = self._init(arguments)
        except self._wandb.errors.Error as error:
            self._teardown()  # the failed attempt holds the id
            self._run = self._init(arguments | {"mode": "offline"})
            why = str(error).partition("\n")[0].rstrip(".")
            print(
                f"wandb: {why}: the metrics are stored; send them with "
                f"wandb sync {Path(self._run.dir).parent}"
            )
        # The server has some rows of a resumed run already.
        self._next = self._run.step

    def _init(self, arguments: dict[str, Any]) -> Any:
        """Start the run without prompts and output of wandb's own."""
        settings = self._wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            init_timeout=_INIT_SECONDS,
            finish_timeout=_FINISH_SECONDS,
            finish_timeout_raises=True,
        )
        self._wandb.setup(self._wandb.Settings(silent=True))  # before it asks for a key
        return self._wandb.init(**arguments, allow_val_change=True, settings=settings)

    def write(self, step: int, metrics: Metrics) -> None:
        """Pass the metrics to wandb's own process, which sends them."""
        if step >= self._next:
            self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Wait until everything is sent, and end wandb's process."""
        try:
            self._run.finish()
        finally:
            self._teardown()

    def _teardown(self) -> None:
        """End wandb's process; without a server it has been seen to never end."""

        def teardown() -> None:
            with suppress(Exception):  # such as the process having been killed
                self._wandb.teardown()

        thread = Thread(target=teardown, daemon=True)
        thread.start()
        thread.join(_FINISH_SECONDS)


def _stored_id(file: Path) -> str:
    """Return the id in a file, created on first use."""
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        write_text(file, secrets.token_hex(4))
    return read_regular(file).decode()


_LOGGERS: dict[str, type[TensorBoard | WeightsAndBiases]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
