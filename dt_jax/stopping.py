"""Being asked to stop: by Ctrl-C, kill, SLURM's SIGUSR1 or a terminal that closes."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal has asked the program to stop.

    Args:
      asked: the signal.
      after: the end of the line about it, such as " after 100 updates".
    """

    def __init__(self, asked: signal.Signals, after: str = ""):
        super().__init__(f"stopped by {asked.name}{after}")
        self.asked = asked

    @property
    def status(self) -> int:
        """The exit status, as the shell has it for a program that a signal ends."""
        return 128 + self.asked


def when_asked(leave: Callable[[Stopped], NoReturn]) -> None:
    """From now on, have `leave` end the program when a signal comes.

    Raising `Stopped` there and then would not do: imports of compiled modules crash
    over it, and callbacks of libraries swallow it.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        leave(Stopped(signal.Signals(number)))

    for each in SIGNALS:
        _handle(each, handler)


class StopRequest:
    """Signals that only leave a note, to be read where stopping loses nothing.

    A context manager; a second Ctrl-C within it does what the first would have done
    outside. In another thread than the main one, which signals never reach, it does
    nothing.

    Attributes:
      asked: the last signal that came.
    """

    asked: signal.Signals | None = None

    def check(self) -> None:
        """Raise `Stopped` if a signal has come."""
        if self.asked is not None:
            raise Stopped(self.asked)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked == number == signal.SIGINT:
            _handle(signal.SIGINT, self._before[signal.SIGINT])
            signal.raise_signal(signal.SIGINT)
        self.asked = signal.Signals(number)

    def __enter__(self) -> "StopRequest":
        self._before = {each: _handle(each, self._note) for each in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for each, handler in self._before.items():
            _handle(each, handler)


def _handle(each: signal.Signals, handler: Any) -> Any:
    """Set the handler of a signal and return the one before; leave an ignored one."""
    before = signal.getsignal(each)
    here = threading.current_thread() is threading.main_thread()
    if here and before not in (signal.SIG_IGN, None):
        signal.signal(each, handler)
    return before
