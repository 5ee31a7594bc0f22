"""A queue of runs, each trained in its own process."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from dt_jax.config import flags
from dt_jax.data.registry import all_specs
from dt_jax.training.loggers import check_installed
from dt_jax.training.resume import delete_leftovers, is_complete, last_checkpoint
from dt_jax.utils.errors import UserError, did_you_mean
from dt_jax.utils.files import InUseError, locked
from dt_jax.utils.signals import Stopped, StopRequest

_POLL_SECONDS = 0.1  # between two checks for a signal


class QueuedRun(NamedTuple):
    """A run of the queue."""

    flags: list[str]  # its command line for `train`
    config: ConfigDict
    workdir: Path  # such as runs/table/hopper-medium

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.workdir.name


def expand_reference(reference: str) -> list[str]:
    """Return the runs that a word of the command line names.

    "family:dataset" and a config file stand for themselves, a family for its D4RL
    datasets, and "all" for those of all families.

    Raises:
      UserError: there is no such family.
    """
    family, colon, _ = reference.partition(":")
    if family.endswith(".py"):
        return [reference]
    datasets: dict[str, list[str]] = {}
    for spec in all_specs().values():
        if not spec.is_demo:
            name = spec.name.removeprefix(f"{spec.family}-").rpartition("-v")[0]
            datasets.setdefault(spec.family, []).append(f"{spec.family}:{name}")
    if reference == "all":
        return [name for names in datasets.values() for name in names]
    if not colon and family in datasets:
        return datasets[family]
    if not (flags.CONFIGS / f"{family}.py").is_file():
        hint = did_you_mean(family, [*datasets, "all"])
        raise UserError(f"no run {reference!r}: no family {family!r}{hint}")
    return [reference]


def make_queue(
    references: Sequence[str], workdir: Path, settings: Sequence[str]
) -> list[QueuedRun]:
    """Return the runs to train in `workdir`, each with a valid configuration.

    Raises:
      UserError: a dataset or setting is wrong, or two runs have the same folder.
    """
    queue = [_queued_run(reference, workdir, settings) for reference in references]
    names = [run.name for run in queue]
    for run in queue:
        if names.count(run.name) > 1:
            raise UserError(f"two runs have the same folder {run.name}: remove one")
    return queue


def _queued_run(reference: str, workdir: Path, settings: Sequence[str]) -> QueuedRun:
    file, colon, dataset = reference.partition(":")
    stem = Path(file).stem if file.endswith(".py") else file  # "iql/hopper"
    name = re.sub(r"[:/]", "-", stem + (f"-{dataset}" if colon else ""))
    path = file if file.endswith(".py") else f"configs/{file}.py"
    command = [f"--config={path}{colon}{dataset}", *settings]
    command.append(f"--workdir={workdir / name}")
    try:
        request = flags.parse(command)
    except UserError as error:
        raise UserError(f"{reference}: {error}") from None
    return QueuedRun(command, request.config, request.workdir)


def run_queue(queue: Sequence[QueuedRun]) -> bool:
    """Train the runs in sequence and print the result of each; True if none failed.

    Raises:
      UserError: a package is missing.
      Stopped: a signal was received; the current run has saved a checkpoint.
    """
    for run in queue:
        check_installed(run.config.loggers)
    results = []
    for number, run in enumerate(queue, 1):
        prefix = f"[{number}/{len(queue)}] {run.name}: "
        results.append(_train(run, prefix))
        print(f"{prefix}{results[-1]}", flush=True)
    print()
    width = max(len(run.name) for run in queue)
    for run, result in zip(queue, results, strict=True):
        print(f"{run.name:<{width}}  {result}")
    return not any(result.startswith("failed") for result in results)


def _train(run: QueuedRun, prefix: str) -> str:
    """Train a run unless it is complete or in use; return the result as one line."""
    try:
        # An unusable run is reported by `train`.
        with locked(run.workdir), suppress(UserError):
            last = last_checkpoint(run.workdir, run.config)
            if last is not None and is_complete(last, run.config):
                delete_leftovers(run.workdir, run.config)
                return "already complete"
    except InUseError as error:
        return f"skipped: {str(error).partition(': ')[0]}"
    except UserError as error:
        return f"failed: {error}"
    print(f"{prefix}started, output in {run.workdir / 'log.txt'}", flush=True)
    start = time.monotonic()
    status, last_line = _run_process(run)
    if status == 0:
        return f"done in {time.monotonic() - start:.0f} s"
    return f"failed, status {status}: {last_line}"


def _run_process(run: QueuedRun) -> tuple[int, str]:
    """Train in a subprocess, to which signals are forwarded.

    Returns:
      Its exit status and its last line of output.
    """
    run.workdir.mkdir(parents=True, exist_ok=True)
    file = run.workdir / "log.txt"
    with (
        StopRequest() as stop,
        file.open("a+", encoding="utf-8", errors="replace") as log,
    ):
        start = log.seek(0, 2)
        # Its own process group: otherwise Ctrl-C on a terminal would reach it twice.
        process = subprocess.Popen(
            [sys.executable, "-um", "dt_jax", "train", *run.flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
            # Killed with this process: an orphan would hold the run's lock for hours.
            env=os.environ | {"DT_JAX_PARENT": str(os.getpid())},
        )
        forwarded = None
        while process.poll() is None:
            if stop.received and stop.received != forwarded:
                forwarded = stop.received
                process.send_signal(forwarded)
            time.sleep(_POLL_SECONDS)
        log.seek(start)
        last_line = (log.read().strip().splitlines() or [""])[-1]
        if stop.received:
            raise Stopped(stop.received, f" in {run.name} ({last_line})")
    return process.returncode, last_line
