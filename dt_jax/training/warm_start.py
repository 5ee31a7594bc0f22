"""Warm start: a new run with the parameters and the normaliser of another."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from dt_jax.agents import make_agent
from dt_jax.config.keys import keys_of
from dt_jax.config.load import validate
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.registry import EnvSpec
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets.describe import out_of_range
from dt_jax.envs.spaces import check_bounds
from dt_jax.evaluation.policy import acting_shapes
from dt_jax.interop.corl import read_checkpoint
from dt_jax.runs.checkpoint import Checkpoint, choose_checkpoint
from dt_jax.types import Params
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import user_path

_FAR = 10  # standard deviations of the source


class WarmStart(NamedTuple):
    """What a run takes over from another one."""

    source: str  # `init_from`, as given
    action_bounds: list[list[float]] | None  # of its environment, if it is known
    params: Params  # acting, for the new run's configuration, NumPy, float32
    normalizer: Normalizer  # with which these parameters were trained

    def normalizer_for(
        self, config: ConfigDict, trajectories: Trajectories, spec: EnvSpec | None
    ) -> Normalizer:
        """Return the source's normaliser, after comparing it with new data.

        Only its reward_scale is the new configuration's: a different one was reported
        when the source was loaded. A constant number was divided by 1e-6 by CORL; it is
        not scaled any more, see `Trajectories`.

        Raises:
          UserError: observations or actions have other sizes, the environment has
            other bounds on actions, or an action is out of the source's range.
        """
        units, data = self.normalizer, trajectories.source
        sizes = units.observation_size, units.action_size
        arrays = trajectories.observations, trajectories.actions
        sizes_here = tuple(array.shape[1] for array in arrays)
        if sizes != sizes_here:
            raise UserError(
                f"{self.source} was trained on observations of {sizes[0]} and actions "
                f"of {sizes[1]} numbers, but {data} has {sizes_here[0]} and "
                f"{sizes_here[1]}: leave init_from out"
            )
        if units.discrete != trajectories.discrete:
            raise UserError(
                f"{self.source} was trained on {units.action_kind} actions, but those "
                f"of {data} are not: leave init_from out"
            )
        check_bounds(self.source, self.action_bounds, spec, "leave init_from out")
        reach = config.max_action * units.action_scale
        low, high = units.action_center - reach, units.action_center + reach
        outside = out_of_range(trajectories.actions, low, high)
        if outside.rows:
            i = outside.column
            raise UserError(
                f"{outside.rows:,} actions of {data} are out of the range of "
                f"{self.source}: number {i} was {low[i]:g} to {high[i]:g} there, here "
                f"it is {outside.value:g}: clip the actions, or leave init_from out"
            )
        std = np.where(units.state_std <= np.float32(1e-6), 1, units.state_std)
        mean = (trajectories.state_mean - units.state_mean) / std
        spread = np.where(trajectories.constant, 0, trajectories.state_std) / std
        far = np.maximum(abs(mean), spread)
        if far.max() > _FAR:
            i = int(far.argmax())
            warnings.warn(
                f"{data}: observation number {i} has a mean of {mean[i]:.3g} and a "
                f"standard deviation of {spread[i]:.3g} in the units of {self.source}, "
                "where they were 0 and 1; convert its units, or leave init_from out",
                stacklevel=1,
            )
        return replace(
            units,
            state_std=std.astype(np.float32),
            reward_scale=config.get("reward_scale", 1.0),
        )


def load(init_from: str, config: ConfigDict) -> WarmStart:
    """Read the source of a warm start, and compare it with the new configuration.

    Where `config` has None for episode_len, max_action or reward_scale, the source's is
    set. What is taken over is printed.

    Args:
      init_from: the folder of a run, or of its checkpoints, for the last one; one of
        them (runs/hopper/checkpoints/2000, .../best); or a file saved by CORL.
      config: of the new run, in which values are set.

    Raises:
      UserError: there is no such source, or its architecture differs.
    """
    path = user_path(init_from)
    if path.is_file():
        return _from_corl(init_from, path, config)
    if checkpoint := _choose(path):
        return _from_run(init_from, checkpoint, config)
    raise UserError(
        f"config.init_from={init_from}: expected the folder of a run, one of its "
        "checkpoints as in runs/hopper/checkpoints/best, or a file saved by CORL"
    )


def _choose(path: Path) -> Checkpoint | None:
    """Return the checkpoint that `path` names; None if it does not exist."""
    # First, because the run's own folder may be checkpoints/hopper.
    if not (path / "checkpoints").is_dir():
        if path.name == "checkpoints" and path.is_dir():
            return choose_checkpoint(path, "last")
        of_a_run = path.parent.name == "checkpoints" and path.parent.is_dir()
        if of_a_run and (path.name in ("last", "best") or path.name.isdecimal()):
            return choose_checkpoint(path.parent, path.name)
    return choose_checkpoint(path / "checkpoints", "last") if path.is_dir() else None


def _from_run(source: str, checkpoint: Checkpoint, config: ConfigDict) -> WarmStart:
    theirs = checkpoint.record["config"]["agent"]
    if theirs != config.agent:
        raise UserError(
            f"{source} is a run of the agent {theirs}, not {config.agent}: "
            "leave init_from out"
        )
    before = checkpoint.config
    if before["num_seeds"] > 1:
        raise UserError(
            f"{source} is a run of {before['num_seeds']} seeds: a run can start with "
            "only one network"
        )
    _compare(source, before, config)
    normalizer = checkpoint.normalizer
    params = checkpoint.params(acting_shapes(make_agent(config, normalizer)))
    print(
        f"warm start: parameters and normalisation are those of {source} after "
        f"{checkpoint.step} updates"
    )
    bounds = checkpoint.record.get("action_bounds")
    return WarmStart(source, bounds, jax.device_get(params), normalizer)


def _from_corl(source: str, path: Path, config: ConfigDict) -> WarmStart:
    saved = read_checkpoint(path)
    if config.max_action is None:
        config.max_action = 1.0  # as in all of D4RL, CORL's data
    _compare(source, saved.network(saved.seq_len or config.seq_len), config)
    normalizer = saved.normalizer(config.reward_scale)
    check_shapes(source, saved.params, config, normalizer)
    print(
        f"warm start: parameters and normalisation are those of {source}. It does not "
        f"hold num_heads, max_action and reward_scale; {config.num_heads}, "
        f"{config.max_action:g} and {config.reward_scale:g} here have to be those of "
        "the config.yaml beside it"
    )
    return WarmStart(source, None, saved.params, normalizer)


def _compare(source: str, before: Mapping[str, Any], config: ConfigDict) -> None:
    """Fill what `config` leaves open from `before`; refuse another architecture."""
    for key in ("episode_len", "max_action", "reward_scale"):
        if config.get(key, 0) is None and key in before:
            config[key] = before[key]
            print(f"{key} {before[key]}: that of {source}")
    validate(config)
    if config.get("reward_scale", 0) is None:
        raise UserError(
            f"{source} does not hold its reward_scale: give the one of the config.yaml "
            "beside it, --config.reward_scale=..."
        )
    differing = [
        name
        for name, key in keys_of(config.agent).items()
        if key.architecture and name in before and before[name] != config[name]
    ]
    if differing:
        theirs = ", ".join(f"{key}={before[key]}" for key in differing)
        ours = ", ".join(str(config[key]) for key in differing)
        flags = " ".join(f"--config.{key}={before[key]}" for key in differing)
        raise UserError(
            f"{source} was trained with {theirs} (here {ours}): set {flags}, or leave "
            "init_from out"
        )
    theirs = before.get("reward_scale", config.get("reward_scale"))
    if theirs != config.get("reward_scale"):
        print(
            f"reward_scale {config.reward_scale:g}, but {source} was trained with "
            f"{theirs:g}: the network sees the same return as another number"
        )


def check_shapes(
    source: str, params: Params, config: ConfigDict, normalizer: Normalizer
) -> None:
    """Raise a UserError unless parameters fit the network of `config`."""
    like = flatten_dict(acting_shapes(make_agent(config, normalizer)), sep="/")
    for name, array in flatten_dict(params, sep="/").items():
        if array.shape != like[name].shape:
            raise UserError(
                f"{source} has a different architecture: {name} has shape "
                f"{array.shape} instead of {like[name].shape}"
            )
