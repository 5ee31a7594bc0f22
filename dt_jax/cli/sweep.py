"""Many runs, one after the other: python -m dt_jax sweep hopper:medium pen:human."""

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from dt_jax.cli.common import CommandParser
from dt_jax.config import flags
from dt_jax.data.registry import all_specs
from dt_jax.datasets.describe import align_columns
from dt_jax.training.extras import check_packages
from dt_jax.training.resume import is_complete, last_checkpoint
from dt_jax.utils.errors import UserError, did_you_mean
from dt_jax.utils.lock import InUseError, alone_in
from dt_jax.utils.signals import Stopped, StopRequest

_POLL_SECONDS = 0.1  # between two looks for a signal while a run is under way


class Queued(NamedTuple):
    """A run of the queue."""

    name: str  # its folder's, "hopper-medium"
    flags: list[str]  # as launch takes them
    config: ConfigDict
    workdir: Path

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.workdir / "log.txt"


def main(arguments: Sequence[str]) -> None:
    """Make the runs that the command line asks for; exit with 1 if one has failed."""
    settings = [word for word in arguments if word.startswith("--config.")]
    rest = [word for word in arguments if word not in settings]
    args = _parser().parse_intermixed_args(rest)
    for setting in settings:
        if "=" not in setting and setting != "--config.deterministic":
            raise UserError(f"{setting} lacks its value: --config.KEY=VALUE")
    if args.num_seeds is not None:
        settings.append(f"--config.num_seeds={args.num_seeds}")
    asked = [reference for each in args.runs for reference in _references(each)]
    queue = [_queued(reference, args.workdir, settings) for reference in asked]
    _check_names(queue)
    if args.list:
        print("\n".join(asked))
        return
    for each in queue:
        check_packages(each.config)
    # This process's alone: what else is there is for the runs.
    jax.config.update("jax_platforms", "cpu")
    outcomes = []
    for number, each in enumerate(queue, 1):
        place = f"[{number}/{len(queue)}] {each.name}: "
        outcomes.append(_outcome(each, place))
        print(f"{place}{outcomes[-1]}", flush=True)
    names = [each.name for each in queue]
    print(f"\n{align_columns([*zip(names, outcomes, strict=True)], '<<')}")
    if any(outcome.startswith("failed") for outcome in outcomes):
        sys.exit(1)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m dt_jax sweep",
        usage="%(prog)s [--help] [--list] [--workdir WORKDIR]\n"
        "         [--num_seeds NUM_SEEDS] [--config.KEY=VALUE ...] run [run ...]",
        description="Train one run after the other, each in a process and a folder of "
        "its own. One that fails does not stop the rest. The same command again skips "
        "what is complete, and goes on with all else.",
        epilog="example: python -m dt_jax sweep hopper:medium pen --num_seeds=4",
    )
    parser.add_argument(
        "runs",
        metavar="run",
        nargs="+",
        help="family:dataset, as in hopper:medium; a family, for all of its datasets "
        "that are D4RL's; all, for all families; or a config file of your own, my.py "
        "or my.py:dataset",
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        default=Path("runs/table"),
        help="the folder for the runs' folders (default: %(default)s)",
    )
    parser.add_argument("--num_seeds", help="short for --config.num_seeds")
    parser.add_argument(
        "--list", action="store_true", help="print the runs, a line each, and leave"
    )
    return parser


def _references(text: str) -> list[str]:
    """Return "family:dataset", or the config file, of each run that is asked for.

    Raises:
      UserError: there is no such family; the line names the nearest.
    """
    family, colon, _ = text.partition(":")
    if family.endswith(".py"):
        return [text]
    datasets: dict[str, list[str]] = {}
    for spec in all_specs().values():
        if not spec.is_demo:
            name = spec.name.removeprefix(f"{spec.family}-").rpartition("-v")[0]
            datasets.setdefault(spec.family, []).append(f"{spec.family}:{name}")
    if text == "all":
        return [*chain.from_iterable(datasets.values())]
    if colon or family not in datasets:  # the second is a config without datasets
        if not (flags.CONFIGS / f"{family}.py").is_file():
            hint = did_you_mean(family, [*datasets, "all"])
            raise UserError(f"no run {text!r}: no family {family!r}; {hint}")
        return [text]
    return datasets[family]


def _queued(reference: str, workdir: Path, settings: Sequence[str]) -> Queued:
    """Return a run, its configuration looked at as launch would.

    Raises:
      UserError: its dataset, or one of the settings, is wrong.
    """
    file, colon, dataset = reference.partition(":")
    name = Path(file).stem + (f"-{dataset}" if colon else "")
    name = re.sub(r"[:/]", "-", name)
    path = file if file.endswith(".py") else f"configs/{file}.py"
    command = [f"--config={path}{colon}{dataset}", *settings]
    command.append(f"--workdir={workdir / name}")
    try:
        request = flags.parse(["sweep", *command])
    except UserError as error:
        raise UserError(f"{reference}: {error}") from None
    return Queued(name, command, request.config, request.workdir)


def _check_names(queue: Sequence[Queued]) -> None:
    names = [each.name for each in queue]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two runs would share the folder {name}: ask for one")


def _outcome(run: Queued, place: str) -> str:
    """Make a run if there is something left to do; return what came of it, in a line.

    Raises:
      Stopped: a signal has come; the run has saved its checkpoint and ended.
    """
    try:
        with alone_in(run.workdir):
            if _is_complete(run):
                return "complete already"
    except InUseError as error:
        return f"left out: {str(error).partition(': ')[0]}"
    except UserError as error:
        return f"failed: {error}"
    print(f"{place}begins, its output is in {run.log}", flush=True)
    began = time.monotonic()
    status, last_line = _launch(run)
    if status == 0:
        return f"done in {time.monotonic() - began:.0f} s"
    return f"failed, status {status}: {last_line}"


def _is_complete(run: Queued) -> bool:
    try:
        last = last_checkpoint(run.workdir, run.config)
    except UserError:  # the run itself tells it
        return False
    return last is not None and is_complete(*last, run.config)


def _launch(run: Queued) -> tuple[int, str]:
    """Make a run; return its exit status and the last line that it has printed.

    A signal is passed on to it, and it is waited for.
    """
    run.workdir.mkdir(parents=True, exist_ok=True)
    with StopRequest() as stop, run.log.open("a+", errors="replace") as log:
        begin = log.seek(0, 2)
        # A group of its own: else it would get the terminal's Ctrl-C, and ours too.
        process = subprocess.Popen(
            [sys.executable, "-um", "dt_jax", "train", *run.flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        passed_on = None
        while process.poll() is None:
            if stop.received and stop.received != passed_on:
                passed_on = stop.received
                process.send_signal(passed_on)
            time.sleep(_POLL_SECONDS)
        log.seek(begin)
        last = (log.read().strip().splitlines() or [""])[-1]
        if stop.received:
            raise Stopped(stop.received, f" in {run.name} ({last})")
    return process.returncode, last
