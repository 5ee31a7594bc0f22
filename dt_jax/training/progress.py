"""Progress of a run: a bar on a terminal, lines elsewhere."""

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
    """A bar with loss, rate and time left; plain lines where there is no terminal.

    Neither where it is not to be shown, for another process shows it.
    """

    def __init__(self, total: int, done: int, shown: bool):
        console = Console(stderr=True)
        self._total, self._shown = total, shown
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
            "training", total=total, completed=done, loss="-", rate="-"
        )
        self._last_line = time.monotonic()

    def __enter__(self) -> "ProgressReport":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def update(self, step: int, metrics: dict[str, float]) -> None:
        """Show the metrics of a step, if there are any of training."""
        if "train_loss" not in metrics:
            return
        loss = f"{metrics['train_loss']:.4f}"
        rate = metrics["steps_per_second"]
        self._bar.update(self._task, completed=step, loss=loss, rate=f"{rate:.3g}")
        now = time.monotonic()
        if self._bar.disable and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (self._total - step) / rate
            self.say(
                f"step {step}/{self._total}  loss {loss}  {rate:.3g} updates/s  "
                f"about {left:.0f} s of updates left"
            )

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Say on the bar what is done meanwhile."""
        self._bar.update(self._task, description=what)
        yield
        self._bar.update(self._task, description="training")

    def say(self, message: str) -> None:
        """Print a line, above the bar if there is one."""
        if not self._shown:
            return
        if self._bar.disable:
            with suppress(OSError):  # nobody reads any more: no reason to end a run
                print(message, file=sys.stderr, flush=True)
        else:
            self._bar.console.print(message, highlight=False)
