"""What all commands share: the argument parser, and errors as one line."""

import argparse
import errno
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from dt_jax.utils.errors import UserError, printable
from dt_jax.utils.signals import Stopped, exit_on_signals

_REMEDIES = {
    errno.ENOSPC: "free some disk space and run the same command again",
    errno.EDQUOT: "free some disk space and run the same command again",
    errno.EMFILE: "raise the limit of open files: ulimit -n 1024",
    errno.EACCES: "permission denied: change the permissions or choose another path",
    errno.EROFS: "choose a path on a writable file system",
    errno.EEXIST: "move the existing file away or choose another path",
    errno.EISDIR: "this is a folder: choose the path of a file",
    errno.ELOOP: "broken or circular symbolic link: fix it or choose another path",
}
# In the texts of errors of JAX, of imports, of threads and of the system.
_NO_MEMORY = (
    "RESOURCE_EXHAUSTED",
    "failed to map segment",
    "can't start new thread",
    os.strerror(errno.ENOMEM),
)


class _HelpFormatter(argparse.HelpFormatter):
    """Wraps everything but examples, which users copy."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example:"):
            return text
        return super()._fill_text(text, width, indent)


class CommandParser(argparse.ArgumentParser):
    """An ArgumentParser that raises UserErrors and accepts no abbreviated flags.

    Args:
      command: what follows `python -m dt_jax`.
      example: what follows it in the example.
      **kwargs: of ArgumentParser.
    """

    def __init__(self, command: str = "", example: str = "", **kwargs: Any):
        if command:
            kwargs["prog"] = f"python -m dt_jax {command}"
            kwargs["epilog"] = f"example: {kwargs['prog']} {example}"
        kwargs.setdefault("formatter_class", _HelpFormatter)
        super().__init__(**kwargs, allow_abbrev=False)
        # What is a value and no flag: argparse itself takes -5 for one, but not -5,-20.
        self._negative_number_matcher = re.compile(r"-[\d.]")
        # `dt_jax.cli.main` has run the file already.
        self.add_argument(
            "--agents", metavar="FILE.py", help="a file that registers your own agents"
        )

    def error(self, message: str) -> NoReturn:
        """Raise a UserError instead of printing the usage."""
        raise UserError(f"{message}; see --help")


def run_command(main: Callable[[], None], program: str) -> None:
    """Run `main`; a user's error becomes one line on stderr and exit status 2.

    Args:
      main: the command.
      program: how the user started it, "launch.py".
    """

    def report(line: str) -> None:
        text = printable(" ".join(line.split()))
        with suppress(OSError, ValueError):  # stderr is closed
            print(f"{program}: {text}", file=sys.stderr, flush=True)

    def leave(stopped: Stopped) -> NoReturn:
        # os._exit: cleaning up after an interrupted import or compilation can crash,
        # and all files are safe against `kill -9` too.
        report(str(stopped))
        # Environments may have started programs of their own.
        module = sys.modules.get("dt_jax.envs.gymnasium_env")  # maybe being imported
        getattr(module, "close_all", lambda: None)()
        with suppress(OSError, RuntimeError, ValueError):
            sys.stdout.flush()
        os._exit(stopped.status)

    def warn(message: Warning | str, *where: Any, **more: Any) -> None:
        report(f"warning: {message}")

    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # it is closed
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # "±"
    warnings.showwarning = warn
    # Of Orbax's threads; and of EnvPool's folder in /tmp, which may be another user's.
    for library in ("absl", "asyncio", "concurrent.futures", "matplotlib"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda error: None  # of their destructors
    exit_on_signals(leave)
    try:
        main()
        print(end="", flush=True)  # here, where a full disk can be reported
        return
    except Stopped as stopped:
        leave(stopped)
    except BrokenPipeError:  # the reader has closed the pipe, as `| head` does
        status = 1
    except SystemExit as finished:  # --help
        status = int(finished.code or 0)
    except Exception as error:
        line = _user_error(error)
        if line is None:
            traceback.print_exc()
            status = 1
        else:
            report(f"error: {line}")
            warnings.simplefilter("ignore")  # of libraries that clean up after it
            status = 2
    _exit(status)


def _user_error(error: Exception) -> str | None:
    """Return the line about an error that a user can correct; None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
        reason = str(error).partition("\n")[0].removeprefix("RESOURCE_EXHAUSTED: ")
        reason = reason[:200].rstrip(".") or "no reason given"
        return (
            f"out of memory: {reason}; reduce batch_size, eval_episodes, seq_len or "
            "embedding_dim, set memory_limit_gb to keep the data on disk, or raise the "
            "limit (ulimit -v)"
        )
    if isinstance(error, ValueError) and (sys.stdout.closed or sys.stderr.closed):
        return (
            "standard output is closed: fix the environment, agent or config file that "
            "has closed sys.stdout or sys.stderr"
        )
    if isinstance(error, ValueError) and re.search("JAX flag|nment 'JAX", str(error)):
        return f"{error}: correct this environment variable, or unset it"
    if isinstance(error, OSError):
        # os.rename names two files; the second one is the user's.
        name = error.filename2 or error.filename
        remedy = _REMEDIES.get(error.errno or 0)
        # HDF5's own text about a full disk is a paragraph.
        line = os.strerror(error.errno or 0) if remedy else error.strerror or str(error)
        line += f": {name}" if name else ""
        return f"{line}; {remedy}" if remedy else line
    return None


def _exit(status: int) -> NoReturn:
    """Exit, without waiting for the other processes of a distributed run."""
    if "jax" in sys.modules:
        from dt_jax.utils import distributed

        distributed.exit_if_joined(status)
    try:
        if not sys.stdout.closed:
            print(end="", flush=True)
    except OSError:  # or Python would try again at exit and report it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
