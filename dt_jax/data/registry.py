"""The named datasets, D4RL's and the demo datasets, their environments and scores."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from dt_jax.types import Array
from dt_jax.utils.errors import UserError, did_you_mean

NO_LIMIT = 2**31 - 1  # steps; JAX and EnvPool count in int32

# D4RL's families: the engine, and the engine's name of the environment. The mazes have
# none here: it is the part of the dataset's name after the family.
_ENGINES = {
    "halfcheetah": ("locomotion", "HalfCheetah-v4"),
    "hopper": ("locomotion", "Hopper-v4"),
    "walker2d": ("locomotion", "Walker2d-v4"),
    "pen": ("adroit", "pen"),
    "door": ("adroit", "door"),
    "hammer": ("adroit", "hammer"),
    "relocate": ("adroit", "relocate"),
    "maze2d": ("maze2d", None),
    "antmaze": ("antmaze", None),
}

# Demo datasets are collected locally on first use, in a D4RL dataset's environment.
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

# Environments given by a table: S, A, the time limit, and the returns of the worst and
# of the best policy. Episodes of the first two end before the limit.
_TABULAR = {
    "corridor": (3, 2, 10, 0.0, 10.0),
    "gambling": (7, 3, 3, -5.0, 1.0),
    "grid": (36, 8, 100, -1000.0, 50.0),
}


@dataclass(frozen=True)
class EnvSpec:
    """An environment, and the dataset recorded in it if `name` names one.

    Attributes:
      name: the `env_name`: "hopper-medium-v2", "hopper-demo" or "Pendulum-v1".
      family: D4RL's family, "hopper"; outside D4RL the same as `env_id`.
      engine: what simulates it, a key of `dt_jax.envs.ENGINES`.
      env_id: the engine's name of it: "Hopper-v4", "pen", "umaze" or "Pendulum-v1".
      url: the address of D4RL's file; None if there is nothing to download.
      max_episode_steps: the time limit in environment steps.
      observation_size: S.
      action_size: A; of discrete actions the number of choices.
      ref_min: the return with score 0, in D4RL a random policy's; None if unknown.
      ref_max: the return with score 100, in D4RL an expert's; None if unknown.
      action_low: the lower bound of actions, [A] or one number for all.
      action_high: the upper bound.
      discrete: whether an action is one of A choices, as a one-hot vector.
      maze: D4RL's maze, "umaze", "medium" or "large"; empty in other environments.
      kwargs: further arguments of the environment's constructor.
    """

    name: str
    family: str
    engine: str
    env_id: str
    url: str | None
    max_episode_steps: int
    observation_size: int
    action_size: int
    ref_min: float | None
    ref_max: float | None
    action_low: float | tuple[float, ...] = -1.0
    action_high: float | tuple[float, ...] = 1.0
    discrete: bool = False
    maze: str = ""
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_demo(self) -> bool:
        """Whether the dataset is collected locally; its scores are not D4RL's."""
        return self.name.endswith("-demo")

    @property
    def environment(self) -> str:
        """The environment without the dataset: "hopper" or "antmaze-umaze"."""
        return f"{self.family}-{self.maze}" if self.maze else self.family

    @property
    def action_bounds(self) -> np.ndarray:
        """The lower and the upper bounds of actions, [2, A] float64."""
        bounds = self.action_low, self.action_high
        return np.stack([np.broadcast_to(x, self.action_size) for x in bounds]) * 1.0

    @property
    def label(self) -> str:
        """The name for tables; marks a Minari dataset whose scores are not D4RL's."""
        comparable = self.engine != "minari"
        return self.name if comparable else f"{self.name} (not D4RL-comparable)"


@cache
def all_specs() -> dict[str, EnvSpec]:
    """Return the environment of every named dataset, by the dataset's name."""
    rows = json.loads((files("dt_jax.data") / "d4rl.json").read_text())
    specs = {}
    for name, row in rows.items():
        engine, env_id = _ENGINES[row["family"]]
        maze = "" if env_id else name.split("-")[1]
        names = {"name": name, "env_id": env_id or maze, "maze": maze}
        specs[name] = EnvSpec(engine=engine, **names, **row)
    for name, d4rl_name in _DEMOS.items():
        specs[name] = replace(specs[d4rl_name], name=name, url=None)
    for env_id, (states, actions, limit, ref_min, ref_max) in _TABULAR.items():
        specs[f"{env_id}-demo"] = EnvSpec(
            name=f"{env_id}-demo",
            family=env_id,
            engine="tabular",
            env_id=env_id,
            url=None,
            max_episode_steps=limit,
            observation_size=states,
            action_size=actions,
            ref_min=ref_min,
            ref_max=ref_max,
            action_low=0.0,
            discrete=True,
        )
    return specs


def lookup(env_name: str) -> EnvSpec:
    """Return the environment of the dataset `env_name`.

    Raises:
      UserError: the dataset is unknown; the message lists the nearest names.
    """
    try:
        return all_specs()[env_name]
    except KeyError:
        hint = did_you_mean(env_name, all_specs())
        raise UserError(f"unknown env_name {env_name!r}{hint}") from None


def is_d4rl(spec: EnvSpec | None) -> bool:
    """Return whether an environment is that of a named dataset, with CORL's units."""
    return spec is not None and spec.name in all_specs()


def demo_for(spec: EnvSpec) -> EnvSpec | None:
    """Return the demo dataset to use if the file of `spec` is missing, if any."""
    specs = all_specs()
    demos = {d4rl_name: specs[demo] for demo, d4rl_name in _DEMOS.items()}
    same_family = (demo for demo in demos.values() if demo.family == spec.family)
    return demos.get(spec.name) or next(same_family, None)


def normalized_score(
    spec: EnvSpec, returns: float | Sequence[float] | Array
) -> np.ndarray | None:
    """Return D4RL's normalised scores, 100 (R - ref_min) / (ref_max - ref_min).

    A score of 0 is D4RL's random policy, 100 its expert: section 5.2 of Fu et al.,
    D4RL, https://arxiv.org/abs/2004.07219, with the constants of d4rl/infos.py.

    Args:
      spec: the environment with its reference returns.
      returns: R, of any shape, in the environment's units.

    Returns:
      The scores in the shape of `returns`; None if `spec` has no reference returns.
    """
    if spec.ref_min is None or spec.ref_max is None:
        return None
    returns = np.asarray(returns, np.float64)
    return 100 * (returns - spec.ref_min) / (spec.ref_max - spec.ref_min)
