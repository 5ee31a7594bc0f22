"""How far the collecting is: a bar on a terminal, else plain lines."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

_LINES_AT = (0.05, 0.25, 0.5, 0.75, 1.0)  # of the whole, where there is no terminal


@contextmanager
def progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show on stderr how many of `total` transitions are there, and the time left.

    Yields:
      What to call with the number of new transitions, as often as they come.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console) as bar:
            task = bar.add_task(f"collecting {name}", total=total)
            yield lambda steps: bar.advance(task, steps)
        return
    start, done, left_to_say = time.monotonic(), 0, list(_LINES_AT)

    def advance(steps: int) -> None:
        nonlocal done
        done = min(done + steps, total)
        if not left_to_say or done < left_to_say[0] * total:
            return
        while left_to_say and done >= left_to_say[0] * total:
            left_to_say.pop(0)
        line = f"collecting {name}: {done:,} of {total:,} transitions"
        if done < total:
            seconds = (time.monotonic() - start) * (total - done) / done
            line += f", about {seconds:.0f} s left"
        print(line, file=sys.stderr, flush=True)

    yield advance
