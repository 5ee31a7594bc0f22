"""Paths as users write them, and files that are never half-written."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

_TOKEN = 8  # hexadecimal digits, drawn anew for each temporary file


def user_path(path: str | Path) -> Path:
    """Return a path with ~ and ~user as their folders; an unknown ~user stays."""
    return Path(os.path.expanduser(path))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`, which takes its place if all goes well.

    Whatever happens, `path` holds its old content or the whole new one. Two writers at
    once, also on two machines, don't meet: the last one's content stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, all of it or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def try_to_write(path: Path) -> None:
    """Make the folder of `path`, and raise an OSError if writing it would."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
    temporary = temporary_path(path)
    try:
        temporary.touch()
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of writers that were killed.

    Only where nobody else writes: those of a writer at work would go too.

    Args:
      path: a file, for its own ones, or a folder, for all that lie directly in it.
    """
    digits, name = "[0-9a-f]" * _TOKEN, Path(escape(path.name))
    if path.is_dir():
        found = path.glob(f".*.{digits}.tmp*")
    else:
        found = path.parent.glob(f".{name.stem}.{digits}.tmp{name.suffix}")
    for temporary in found:
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return a name beside `path` that nobody else has."""
    # The suffix stays last: some writers choose the format by it.
    return path.with_name(
        f".{path.stem}.{secrets.token_hex(_TOKEN // 2)}.tmp{path.suffix}"
    )
