"""The scores that others have published for the Decision Transformer on D4RL."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

_PLACES = 2  # decimals of CORL's scores


class Spread(NamedTuple):
    """A score: its mean over seeds, and their standard deviation.

    CORL's, and so ours beside it, divides by S; of one seed there is none.
    """

    mean: float
    std: float | None


class Published(NamedTuple):
    """What is published on a dataset of D4RL's.

    Attributes:
      domain: "locomotion", over which CORL averages.
      last: CORL's score at the last evaluation, at the largest target return.
      best: the mean of each of its runs' best evaluation.
      paper: the score of Chen et al., on locomotion alone.
      settings: keys of a configuration, with CORL's values.
    """

    domain: str
    last: Spread
    best: Spread
    paper: Spread | None
    settings: Mapping[str, Any]


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(
        (files("dt_jax.analysis") / "published.json").read_text()
    )
    return table


def sources() -> tuple[str, str]:
    """Return where CORL's scores are from, and the paper's."""
    return _table()["corl"], _table()["paper"]


@cache
def published() -> dict[str, Published]:
    """Return what is published on each dataset, in the order of CORL's tables."""
    table = _table()
    return {
        name: Published(
            row["domain"],
            Spread(*row["last"]),
            Spread(*row["best"]),
            Spread(*row["paper"]) if "paper" in row else None,
            table["settings"] | row["settings"],
        )
        for name, row in table["datasets"].items()
    }


def difference(ours: float, theirs: Spread) -> float:
    """Return ours - theirs to as many digits as theirs is published with."""
    return round(round(ours, _PLACES) - theirs.mean, _PLACES)
