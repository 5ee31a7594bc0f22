"""Errors that a user can cause, told in one line and without a traceback."""

import argparse
import errno
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from dt_jax.stopping import Stopped, when_asked

_PACKAGE = Path(__file__).parent
_MOST_NAMES = 20  # that a line may list
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # in Gymnasium's warnings

_CURES = {
    errno.ENOSPC: "make room, and give the same command again",
    errno.EDQUOT: "make room, and give the same command again",
    errno.EACCES: "have its rights changed, or name another place",
    errno.EROFS: "name a place that may be written",
    errno.EEXIST: "move away what is there, or name another place",
    errno.EISDIR: "move that folder away, or name another place",
    errno.ELOOP: "mend the link, or name another place",
}


class UserError(Exception):
    """Something the user can put right; the message says what, where and how."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error line: the names nearest to `name`, else all or some.

    Upper and lower case are the same.
    """
    names = {each.lower(): each for each in sorted(known)}
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    if near:
        return f"nearest: {', '.join(names[each] for each in near)}"
    some, said = list(names.values()), "known"
    if len(some) > _MOST_NAMES:
        said = f"among the {len(some)} known"
        some = some[:: -(-len(some) // 5)]  # far apart, to be of several kinds
    return f"{said}: {', '.join(some)}"


def printable(text: str) -> str:
    """Return text from outside with what could steer a terminal written out."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


class _WithWholeExamples(argparse.HelpFormatter):
    """Wraps all but examples, which are to be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example:"):
            return text
        return super()._fill_text(text, width, indent)


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are UserErrors; flags may not be shortened."""

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("formatter_class", _WithWholeExamples)
        super().__init__(**kwargs, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Tell a mistake on the command line."""
        raise UserError(f"{message}; see --help")


def exit_with_one_line(main: Callable[[], None]) -> None:
    """Run `main`; a user's error becomes one line on stderr and exit status 2."""
    warnings.showwarning = _warn_in_one_line
    _open_streams()
    _hush_threads()
    answer_signals()
    try:
        main()
        print(end="", flush=True)  # at exit nobody could catch that it fails
    except UserError as error:
        fail(str(error), status=2)
    except BrokenPipeError:  # whoever reads has had enough, as `| head` has
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that may not be written, ...
        name = error.filename2 or error.filename  # of two, where it was to be moved to
        place = f": {name}" if name else ""
        cure = _CURES.get(error.errno or 0)
        line = f"{error.strerror or error}{place}"
        fail(f"{line}; {cure}" if cure else line, status=2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        fail(_out_of_memory(error), status=2)
    except Stopped as stopped:
        _leave(stopped)
    finally:
        _let_go_of_stdout()


def answer_signals() -> None:
    """From now on, end this program in one line when a signal asks for it."""
    when_asked(_leave)


def _open_streams() -> None:
    """Have streams that take any text; where the shell has closed one, nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # its number could become that of a data file
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is


def _hush_threads() -> None:
    """Have no traceback of what a failed save leaves in Orbax's threads: it is told."""
    for name in ("asyncio", "concurrent.futures"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def tell(lost: Any) -> None:
        if str(lost.exc_value) != "Event loop is closed":
            sys.__unraisablehook__(lost)

    sys.unraisablehook = tell


def _out_of_memory(error: Exception) -> str:
    """Return the one line about memory that is full, the host's or the device's."""
    why = str(error).partition("\n")[0][:200] or "the machine has no more"
    return (
        f"out of memory: {why}; smaller batch_size, eval_episodes, seq_len or "
        "embedding_dim take less, memory_limit_gb keeps data on the disk"
    )


def _leave(stopped: Stopped) -> NoReturn:
    """Tell what has stopped this program, and end it wherever it is.

    Whatever must not be left half-done is safe from kill -9 too. Python's clearing up
    after itself can crash over what has been broken off.
    """
    try:
        # It can't be told where nobody reads, or in the middle of another print.
        with suppress(OSError, RuntimeError):
            if sys.stderr.isatty():
                print("\x1b[?25h", end="", file=sys.stderr)  # a bar hides the cursor
            _tell(str(stopped))
            _let_go_of_stdout()
    finally:
        os._exit(stopped.status)


def _let_go_of_stdout() -> None:
    """Write what is left, or drop it where that fails: exiting must not try again."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str, status: int) -> NoReturn:
    """Print `message` as this program's one error line and exit with `status`."""
    _tell(f"error: {message}")
    sys.exit(status)


def _warn_in_one_line(message: Warning | str, *where: Any, **more: Any) -> None:
    _tell(f"warning: {message}")


def _tell(line: str) -> None:
    file = Path(sys.argv[0])
    program = file.name
    if file.is_relative_to(_PACKAGE):
        parts = file.relative_to(_PACKAGE.parent).with_suffix("").parts
        program = f"python -m {'.'.join(parts).removesuffix('.__main__')}"
    elif program == "-m":  # it is not found yet
        program = f"python -m {sys.orig_argv[sys.orig_argv.index('-m') + 1]}"
    plain = " ".join(_COLOUR.sub("", line).split())
    print(f"{program}: {printable(plain)}", file=sys.stderr)
