"""Progress of a run on the terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

_SECONDS_BETWEEN_LINES = 10.0  # without a terminal


class ProgressReport:
    """A progress bar with loss and speed; without a terminal, lines on stderr.

    Where another process prints, `shown` is False.
    """

    def __init__(self, description: str, total: int, done: int, shown: bool):
        console = Console(stderr=True)
        self._description, self._total, self._shown = description, total, shown
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[rate]} updates/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._bar.add_task(
            description, total=total, completed=done, loss="-", rate="-"
        )
        self._last_line = time.monotonic()

    def __enter__(self) -> "ProgressReport":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def update(self, step: int, loss: float, rate: float) -> None:
        """Show the progress after `step` updates: the last loss, updates per second."""
        shown = f"{loss:.4f}"
        self._bar.update(self._task, completed=step, loss=shown, rate=f"{rate:.3g}")
        now = time.monotonic()
        if self._bar.disable and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (self._total - step) / rate
            self.log(
                f"step {step}/{self._total}  loss {shown}  {rate:.3g} updates/s  "
                f"about {left:.0f} s of updates left"
            )

    @contextmanager
    def phase(self, description: str) -> Iterator[None]:
        """Show another description on the bar meanwhile."""
        self._bar.update(self._task, description=description)
        yield
        self._bar.update(self._task, description=self._description)

    def log(self, message: str) -> None:
        """Print a line, above the bar if there is one."""
        if not self._shown:
            return
        if self._bar.disable:
            with suppress(OSError):  # a closed stderr is no reason to end a run
                print(message, file=sys.stderr, flush=True)
        else:
            self._bar.console.print(message, highlight=False)
