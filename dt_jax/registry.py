"""What every known `env_name` stands for: D4RL's datasets and our demo datasets."""

import json
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from dt_jax.errors import UserError, did_you_mean

# Each demo dataset is collected on first use, in the environment of a D4RL family.
_DEMOS = {f"{family}-demo": family for family in ("halfcheetah", "hopper", "walker2d")}


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset and the environment it is scored in.

    Attributes:
      name: the `env_name`, "hopper-medium-v2" or "hopper-demo".
      family: the environment, "hopper".
      url: where D4RL's file lies; None for a demo dataset.
      max_episode_steps: D4RL's time limit, in environment steps.
      observation_size: S.
      action_size: A.
      ref_min: D4RL's return of a random policy, normalised score 0.
      ref_max: D4RL's return of an expert, normalised score 100.
    """

    name: str
    family: str
    url: str | None
    max_episode_steps: int
    observation_size: int
    action_size: int
    ref_min: float
    ref_max: float

    @property
    def is_demo(self) -> bool:
        """Whether we collect this dataset ourselves; its scores are not D4RL's."""
        return self.url is None


@cache
def all_specs() -> dict[str, DatasetSpec]:
    """Return every known dataset by its name."""
    rows = json.loads((files("dt_jax") / "d4rl.json").read_text())
    specs = {name: DatasetSpec(name=name, **row) for name, row in rows.items()}
    by_family = {spec.family: spec for spec in specs.values()}
    for name, family in _DEMOS.items():
        specs[name] = replace(by_family[family], name=name, url=None)
    return specs


def lookup(env_name: str) -> DatasetSpec:
    """Return the dataset called `env_name`.

    Raises:
      UserError: there is none of that name; the line names the nearest ones.
    """
    try:
        return all_specs()[env_name]
    except KeyError:
        hint = did_you_mean(env_name, all_specs())
        raise UserError(f"unknown env_name {env_name!r}; {hint}") from None
