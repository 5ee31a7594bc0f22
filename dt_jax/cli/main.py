"""The command line: python -m dt_jax <command>, one module of this package each."""

import os
import runpy
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from dt_jax.cli.common import CommandParser, run_command
from dt_jax.utils.errors import UserError, describe_error, did_you_mean
from dt_jax.utils.versions import __version__

COMMANDS = {
    "train": "train an agent, or resume a run",
    "evaluate": "evaluate a checkpoint of a run",
    "report": "compare runs with each other and with published scores",
    "video": "film episodes of a run",
    "export": "write a run in another program's format",
    "import": "read a run from another program's format",
    "data": "list, describe, download and clear datasets",
    "collect": "collect a demo dataset",
    "sweep": "train several configurations one after the other",
}


def main() -> None:
    """Run the command that sys.argv names."""
    arguments = sys.argv[1:]
    command = arguments[0] if arguments and arguments[0] in COMMANDS else ""
    installed = Path(sys.argv[0]).stem == "dt_jax"  # the console script
    program = "dt_jax" if installed else "python -m dt_jax"
    run(arguments, f"{program} {command}".strip())


def run(arguments: Sequence[str], program: str) -> None:
    """Run a command, with every error of the user's reported in one line.

    Args:
      arguments: the command and its arguments.
      program: how the user started it, for messages.
    """
    # Matplotlib, and packages that import it, fail with an unknown backend, such as a
    # notebook's for `!python`. Pictures here need none.
    os.environ.pop("MPLBACKEND", None)
    run_command(lambda: _dispatch(arguments), program)


def _dispatch(arguments: Sequence[str]) -> None:
    try:
        Path.cwd()
    except FileNotFoundError:  # EnvPool would abort the process
        raise UserError("the working folder was removed: change to another") from None
    _register_agents(arguments)
    if arguments and arguments[0] in COMMANDS:
        command, *rest = arguments
        import_module(f"dt_jax.cli.{command.replace('import', 'import_')}").main(rest)
        return
    if arguments and not arguments[0].startswith("-"):
        hint = did_you_mean(arguments[0], COMMANDS)
        raise UserError(f"unknown command {arguments[0]!r}{hint}")
    commands = "\n".join(
        f"  python -m dt_jax {name:<9} {does}" for name, does in COMMANDS.items()
    )
    parser = CommandParser(
        prog="python -m dt_jax",
        description="Offline reinforcement learning by sequence modelling, in JAX.",
        epilog="example: python -m dt_jax train --help\n\n"
        "--agents=FILE.py after any command first runs a file that registers agents of "
        f"your own.\n\ncommands:\n{commands}",
    )
    parser.add_argument("--version", action="version", version=f"dt_jax {__version__}")
    parser.parse_args(arguments)
    parser.print_help()


def _register_agents(arguments: Sequence[str]) -> None:
    """Run the files that --agents=FILE.py names, before a command needs the agents."""
    for flag, _, file in (word.partition("=") for word in arguments):
        if flag != "--agents":
            continue
        if not Path(file).is_file():
            raise UserError(f"--agents={file}: expected a file, as in --agents=FILE.py")
        try:
            runpy.run_path(file)
        except (Exception, SystemExit) as error:  # whatever a user's file may raise
            raise UserError(f"--agents={describe_error(error, file)}") from error
