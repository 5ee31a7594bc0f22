"""Configuration keys: each is declared once, with its default, comment and check."""

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dt_jax.utils.errors import UserError

_MOST_FLOAT = float(np.finfo(np.float32).max)  # everything is computed in float32


class Check(NamedTuple):
    """What the value of a key may be."""

    expected: str  # the end of the error message, "an integer from 1 to 9"
    accepts: Callable[[Any], bool]
    parse: Callable[[str], Any]  # of the command line's text; raises ValueError


@dataclass(frozen=True)
class Key:
    """A configuration key.

    Attributes:
      name: as on the command line, after --config.
      default: its value where nothing else is given.
      check: what it may be.
      comment: what it means; --help and the documentation print it.
      resumable: whether a resumed run may have another value. False for everything
        that the completed updates depend on.
      from_data: whether None means a value that is taken from the dataset.
      architecture: whether it determines the parameters' shapes or what they compute,
        so that a warm start needs the same value.
      corl: whether CORL's dt.py has this option under this name.
    """

    name: str
    default: Any
    check: Check
    comment: str
    resumable: bool = False
    from_data: bool = False
    architecture: bool = False
    corl: bool = False

    def parse(self, text: str, flag: str | None = None) -> Any:
        """Return the value that the command line's `text` stands for.

        Raises:
          UserError: the text is no valid value; it names `flag`, or config.<name>.
        """
        try:
            value = None if text == "None" else self.check.parse(text)
        except ValueError:
            raise self.error(text, flag) from None
        self.validate(value, flag)
        return value

    def validate(self, value: Any, flag: str | None = None) -> None:
        """Raise a UserError unless `value` is valid."""
        if not self.check.accepts(value):
            raise self.error(value, flag)

    def error(
        self, value: Any, flag: str | None = None, expected: str | None = None
    ) -> UserError:
        """Return the error about a value that is not what is expected."""
        shown = " ".join(str(value).replace("\0", r"\0").split())[:200]
        expected = expected or self.check.expected
        return UserError(
            f"{flag or f'config.{self.name}'}={shown}: expected {expected}"
        )


def integer(least: int, most: int = 2**31 - 1) -> Check:
    """Accept an integer; JAX and the environments count in 32 bits."""
    return Check(
        f"an integer from {least} to {most}",
        lambda value: type(value) is int and least <= value <= most,
        _parse_int,
    )


def number(expected: str, accepts: Callable[[float], bool]) -> Check:
    """Accept a number that float32 can hold."""
    return Check(expected, lambda value: _is_number(value) and accepts(value), float)


def numbers(expected: str, accepts: Callable[[tuple], bool]) -> Check:
    """Accept a tuple of numbers."""
    return Check(
        expected,
        lambda value: (
            type(value) is tuple and all(map(_is_number, value)) and accepts(value)
        ),
        _parse_numbers,
    )


def boolean() -> Check:
    """Accept True or False."""
    return Check("true or false", lambda value: type(value) is bool, _parse_bool)


def text(expected: str, accepts: Callable[[str], bool] = bool) -> Check:
    """Accept a string without null bytes."""
    return Check(
        expected,
        lambda value: isinstance(value, str) and "\0" not in value and accepts(value),
        str,
    )


def arguments(expected: str) -> Check:
    """Accept the text of a dictionary of keyword arguments; see `parse_arguments`."""
    return Check(
        expected,
        lambda value: isinstance(value, str) and _is_arguments(value),
        lambda text: repr(parse_arguments(text)),
    )


def parse_arguments(text: str) -> dict[str, Any]:
    """Return the keyword arguments in the text of a dictionary, Python's or JSON's.

    Raises:
      ValueError: it is something else.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text)
        except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise ValueError(text) from error
    if type(value) is dict and all(type(name) is str for name in value):
        return value
    raise ValueError(text)


def _is_arguments(text: str) -> bool:
    try:
        parse_arguments(text)
    except ValueError:
        return False
    return True


def one_of(*values: str) -> Check:
    """Accept one of the given strings."""
    return text(f"one of {', '.join(values)}", values.__contains__)


def some_of(*values: str) -> Check:
    """Accept a tuple of some of the given strings, each at most once."""
    return Check(
        f"some of {','.join(values)}, each once, or () for none",
        lambda value: (
            type(value) is tuple
            and all(each in values for each in value)
            and len(set(value)) == len(value)
        ),
        _parse_names,
    )


def or_none(check: Check) -> Check:
    """Accept None as well."""
    expected = f"{check.expected}, or None"
    return Check(expected, lambda x: x is None or check.accepts(x), check.parse)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_MOST_FLOAT <= value <= _MOST_FLOAT


def _parse_int(text: str) -> int:
    """Parse "100000", "100_000" or "1e5"."""
    try:
        return int(text)
    except ValueError:
        value = float(text)
        if not value.is_integer():
            raise
        return int(value)


def _parse_bool(text: str) -> bool:
    """Parse "true" or "false", in any case."""
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _parse_numbers(text: str) -> tuple[float, ...]:
    """Parse "3600,1800", "(3600, 1800)" or "3600"."""
    inside = text.strip().strip("()[]").strip().removesuffix(",")
    return tuple(float(part) for part in inside.split(",")) if inside else ()


def _parse_names(text: str) -> tuple[str, ...]:
    """Parse "tensorboard,wandb" or "('tensorboard', 'wandb')"."""
    parts = (part.strip(" ()[]'\"") for part in text.split(","))
    return tuple(part for part in parts if part)


PROBABILITY = number("a number from 0 to below 1", lambda p: 0 <= p < 1)
POSITIVE = number("a float32 number above 0", lambda x: bool(np.float32(x) > 0))
NOT_NEGATIVE = number("a float32 number from 0 upwards", lambda x: x >= 0)
POSITIVE_INTEGER = integer(1)


def united(*sections: tuple[Key, ...]) -> tuple[Key, ...]:
    """Return the keys of several agents; of equal names the first counts."""
    keys: dict[str, Key] = {}
    for key in (key for section in sections for key in section):
        keys.setdefault(key.name, key)
    return tuple(keys.values())
