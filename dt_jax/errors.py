"""Errors that a user can cause, told in one line and without a traceback."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn


class UserError(Exception):
    """Something the user can put right; the message says what, where and how."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error line: the names nearest to `name`, else all."""
    known = sorted(known)
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    return f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known)}"


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are UserErrors; flags may not be shortened."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Tell a mistake on the command line."""
        raise UserError(f"{message}; see --help")


def exit_with_one_line(main: Callable[[], None]) -> None:
    """Run `main`; a user's error becomes one line on stderr and exit status 2."""
    warnings.showwarning = _warn_in_one_line
    try:
        main()
    except UserError as error:
        fail(str(error), status=2)
    except BrokenPipeError:  # whoever reads has had enough, as `| head` has
        # What is still to be written has nowhere to go: exiting must not try.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that may not be written, ...
        place = f": {error.filename}" if error.filename else ""
        fail(f"{error.strerror or error}{place}", status=2)
    except KeyboardInterrupt:
        fail("interrupted", status=130)


def fail(message: str, status: int) -> NoReturn:
    """Print `message` as this program's one error line and exit with `status`."""
    _tell("error", message)
    sys.exit(status)


def _warn_in_one_line(message: Warning | str, *where: Any, **more: Any) -> None:
    _tell("warning", str(message))


def _tell(kind: str, message: str) -> None:
    program = Path(sys.argv[0])
    if program.name == "__main__.py":  # python -m package
        program = program.parent
    print(f"{program.name}: {kind}: {' '.join(message.split())}", file=sys.stderr)
