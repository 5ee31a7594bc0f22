"""What every named dataset stands for: D4RL's and our demo ones."""

import json
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from dt_jax.utils.errors import UserError, did_you_mean

NO_LIMIT = 2**31 - 1  # steps; JAX and EnvPool count in int32

# Each is collected on first use, in the environment of a D4RL dataset.
_DEMOS = {
    "halfcheetah-demo": "halfcheetah-medium-v2",
    "hopper-demo": "hopper-medium-v2",
    "walker2d-demo": "walker2d-medium-v2",
    "maze2d-umaze-demo": "maze2d-umaze-v1",
    "maze2d-medium-demo": "maze2d-medium-v1",
    "maze2d-large-demo": "maze2d-large-v1",
    "antmaze-umaze-demo": "antmaze-umaze-v2",
    "antmaze-umaze-diverse-demo": "antmaze-umaze-diverse-v2",
    "antmaze-medium-play-demo": "antmaze-medium-play-v2",
    "antmaze-medium-diverse-demo": "antmaze-medium-diverse-v2",
    "antmaze-large-play-demo": "antmaze-large-play-v2",
    "antmaze-large-diverse-demo": "antmaze-large-diverse-v2",
}


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset and the environment it is scored in, or any other environment.

    Attributes:
      name: the `env_name`, "hopper-medium-v2", "hopper-demo" or "Pendulum-v1".
      family: the environment, "hopper"; of one that is not D4RL's, its engine.
      url: where D4RL's file lies; None where there is none to download.
      max_episode_steps: the time limit, in environment steps.
      observation_size: S.
      action_size: A.
      ref_min: the return that scores 0, in D4RL a random policy's; None where
        nobody has named one.
      ref_max: the return that scores 100, in D4RL an expert's; or None.
      action_low: the smallest action, [A] or one number for all.
      action_high: the largest.
      maze: which maze an antmaze or maze2d has, "umaze", "medium" or "large"; nothing
        elsewhere.
    """

    name: str
    family: str
    url: str | None
    max_episode_steps: int
    observation_size: int
    action_size: int
    ref_min: float | None
    ref_max: float | None
    action_low: float | tuple[float, ...] = -1.0
    action_high: float | tuple[float, ...] = 1.0
    maze: str = ""

    @property
    def is_demo(self) -> bool:
        """Whether we collect this dataset ourselves; its scores are not D4RL's."""
        return self.name.endswith("-demo")

    @property
    def environment(self) -> str:
        """What it is scored in: "hopper", "antmaze-umaze"."""
        return f"{self.family}-{self.maze}" if self.maze else self.family

    @property
    def label(self) -> str:
        """The name for tables; it says where a Minari dataset is scored elsewhere."""
        elsewhere = self.family == "minari"
        return f"{self.name} (not D4RL-comparable)" if elsewhere else self.name


@cache
def all_specs() -> dict[str, DatasetSpec]:
    """Return every known dataset by its name."""
    rows = json.loads((files("dt_jax.data") / "d4rl.json").read_text())
    specs = {
        name: DatasetSpec(name=name, maze=_maze(name), **row)
        for name, row in rows.items()
    }
    for name, scored_as in _DEMOS.items():
        specs[name] = replace(specs[scored_as], name=name, url=None)
    return specs


def _maze(name: str) -> str:
    family, maze, *_ = name.split("-")
    return maze if family in ("antmaze", "maze2d") else ""


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


def demo_like(spec: DatasetSpec) -> DatasetSpec | None:
    """Return the demo dataset that can stand for `spec` where its file is missing."""
    specs = all_specs()
    demos = {scored_as: specs[demo] for demo, scored_as in _DEMOS.items()}
    same_body = (demo for demo in demos.values() if demo.family == spec.family)
    return demos.get(spec.name) or next(same_body, None)
