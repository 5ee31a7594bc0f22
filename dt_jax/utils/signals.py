"""Signal handling: Ctrl-C, kill, SLURM's SIGUSR1, or a closed terminal."""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

_POLL_SECONDS = 0.2  # between two checks for a parent
_GRACE_SECONDS = 0.7  # for each of two ways to end at the second signal
_SAME_SECONDS = 0.3  # `timeout` sends SIGTERM twice: to its child and to its group

_NAMES = "SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"  # Windows has only the first two
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


_after = ""  # see `set_stop_message`


class Stopped(KeyboardInterrupt):
    """A signal has asked the program to stop; `after` ends the message."""

    def __init__(self, signal: signal.Signals, after: str = ""):
        super().__init__(f"interrupted by {signal.name}{after}")
        self.signal, self.after = signal, after

    @property
    def status(self) -> int:
        """The exit status, as a shell reports it for this signal."""
        return 128 + self.signal


def exit_on_signals(leave: Callable[[Stopped], NoReturn]) -> None:
    """From now on, have `leave` end the program when a signal arrives.

    The handler does not raise `Stopped` itself: imports of compiled modules crash on
    an exception, and callbacks of libraries swallow it.

    The second SIGINT or SIGTERM ends the process whatever the main thread does. Python
    runs handlers there, between two lines of Python: not while it waits for a compiled
    program, which waits for an environment.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        leave(Stopped(signal.Signals(number), _after))

    for each in SIGNALS:
        _set_handler(each, handler)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(
        target=_end_at_second_signal, args=(reader, leave), daemon=True
    ).start()


def set_stop_message(after: str) -> None:
    """From now on, end the message of the handler of `exit_on_signals` with `after`."""
    global _after
    _after = after


def _end_at_second_signal(reader: int, leave: Callable[[Stopped], NoReturn]) -> None:
    """Wait for two signals; then end the process, by `leave` if that is possible.

    Args:
      reader: a pipe into which each signal writes its number.
      leave: see `exit_on_signals`.
    """
    first = None  # when it arrived
    while True:
        number = signal.Signals(os.read(reader, 1)[0])
        if number not in (signal.SIGINT, signal.SIGTERM):
            continue
        if first is None:
            first = time.monotonic()
        elif number == signal.SIGINT or time.monotonic() - first > _SAME_SECONDS:
            break
    stopped = Stopped(number)
    time.sleep(_GRACE_SECONDS)  # the main thread may end the process itself
    threading.Thread(target=leave, args=(stopped,), daemon=True).start()
    time.sleep(_GRACE_SECONDS)  # it may wait for a lock on stdout
    os._exit(stopped.status)


def end_with_parent() -> None:
    """Kill this process and its children soon after the one that started it has died.

    Only if that one has asked for it, by its process id in DT_JAX_PARENT, and has
    given this process a group of its own.
    """
    parent = int(os.environ.pop("DT_JAX_PARENT", "0"))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os.killpg(os.getpid(), signal.SIGKILL)

    if parent:
        threading.Thread(target=watch, name="parent", daemon=True).start()


class StopRequest:
    """Records a signal, to be acted on where stopping loses nothing.

    A context manager. A second Ctrl-C inside it acts as the first would outside. In
    any thread but the main one, which signals never reach, it does nothing.

    Attributes:
      received: the last signal.
    """

    received: signal.Signals | None = None

    def check(self) -> None:
        """Raise `Stopped` if a signal was received."""
        if self.received is not None:
            raise Stopped(self.received)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            _set_handler(signal.SIGINT, self._before[signal.SIGINT])
            signal.raise_signal(signal.SIGINT)
        self.received = signal.Signals(number)

    def __enter__(self) -> "StopRequest":
        self._before = {each: _set_handler(each, self._record) for each in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for each, handler in self._before.items():
            _set_handler(each, handler)


def is_ctrl_c(error: BaseException) -> bool:
    """Return whether Python has raised this error for Ctrl-C, and not other code."""
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


def _set_handler(each: signal.Signals, handler: Any) -> Any:
    """Set a signal's handler and return the one before; an ignored signal stays so."""
    before = signal.getsignal(each)
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and before not in (signal.SIG_IGN, None):
        signal.signal(each, handler)
    return before


def _restore_handlers() -> None:
    """Undo this module's handlers in a forked process, which a signal is to end."""
    for each in SIGNALS:
        if getattr(signal.getsignal(each), "__module__", None) == __name__:
            is_ctrl_c = each == signal.SIGINT
            default = signal.default_int_handler if is_ctrl_c else signal.SIG_DFL
            signal.signal(each, default)
            signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_restore_handlers)
