"""Errors that a user can correct, and helpers for their messages."""

import traceback
from collections.abc import Iterable
from difflib import get_close_matches

_MOST_NAMES = 20  # listed in one error message


class UserError(Exception):
    """A mistake the user can correct; the message says what, where and how."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the known names nearest to `name`.

    If none is near, all known names, or "" if they are many. Case is ignored.
    """
    names = {each.lower(): each for each in sorted(known)}
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    if near:
        return f"; nearest: {', '.join(names[each] for each in near)}"
    return f"; known: {', '.join(names.values())}" if len(names) <= _MOST_NAMES else ""


def describe_error(error: BaseException, file: str) -> str:
    """Return an error that a user's file raised: the file, the line, type and text."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    where = f"{file}, line {lines[-1]}" if lines else file
    return f"{where}: {type(error).__name__}: {error}"


def printable(text: str) -> str:
    """Return `text` with control characters escaped, so that a terminal is safe."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
