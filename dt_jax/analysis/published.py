"""Published scores of the Decision Transformer on D4RL."""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple


class Spread(NamedTuple):
    """Mean and standard deviation of a score over seeds.

    The deviation divides by S, as in CORL; it is None for a single seed.
    """

    mean: float
    std: float | None

    def text(self, digits: int = 2) -> str:
        """Return "65.10 ± 1.61"."""
        if self.std is None:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} ± {self.std:.{digits}f}"


class Published(NamedTuple):
    """Published scores on one D4RL dataset.

    Attributes:
      domain: the group over which CORL averages, such as "locomotion".
      last: CORL's score at the last evaluation, at the largest target return.
      best: CORL's mean of the best evaluation of each seed.
      paper: the score of Chen et al., 2021; only for locomotion.
      settings: configuration keys with CORL's values.
    """

    domain: str
    last: Spread
    best: Spread
    paper: Spread | None
    settings: Mapping[str, Any]


_TABLE: dict[str, Any] = json.loads(
    (files("dt_jax.analysis") / "published.json").read_text()
)
SOURCES: tuple[str, str] = _TABLE["corl"], _TABLE["paper"]
# By dataset name, in the order of CORL's tables.
PUBLISHED = {
    name: Published(
        row["domain"],
        Spread(*row["last"]),
        Spread(*row["best"]),
        Spread(*row["paper"]) if "paper" in row else None,
        _TABLE["settings"] | row["settings"],
    )
    for name, row in _TABLE["datasets"].items()
}
