"""A new run that begins with the parameters and the normalisation of another."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from dt_jax.agents.dt import SCALING, DecisionTransformerAgent
from dt_jax.config.config import validate
from dt_jax.config.rules import ADDED
from dt_jax.interop.corl import read_checkpoint
from dt_jax.runs.checkpoint import Checkpoint, choose
from dt_jax.types import Params
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import user_path

# The keys of a configuration that shape the network or what it computes. seq_len and
# episode_len both: their sum is the number of rows of the timestep table.
_NETWORK = (
    "embedding_dim",
    "num_layers",
    "num_heads",
    "activation",
    "seq_len",
    "episode_len",
    "max_action",
)


class WarmStart(NamedTuple):
    """What a run takes over from another one.

    Attributes:
      source: `init_from`, as given.
      env_name: of the source; None where actions were in the data's own units.
      params: of the network that the new run's configuration describes, NumPy, float32.
      scaling: state_mean and state_std [S], action_center and action_scale [A], with
        which these parameters were trained, float32.
    """

    source: str
    env_name: str | None
    params: Params
    scaling: dict[str, np.ndarray]

    def scaling_for(
        self, data: str, scaling: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return the scaling of the source, held against the new run's own.

        Args:
          data: the new run's data, as error lines name it.
          scaling: as it would be without a warm start.

        Raises:
          UserError: observations or actions are of other sizes, or actions are in other
            units. Mean and standard deviation may differ: the source's are taken.
        """
        size, size_here = (
            (len(s["state_mean"]), len(s["action_center"]))
            for s in (self.scaling, scaling)
        )
        if size != size_here:
            raise UserError(
                f"{self.source} was trained on observations of {size[0]} and actions "
                f"of {size[1]} numbers; {data} has {size_here[0]} and {size_here[1]}: "
                "leave init_from out, or give data of the same environment"
            )
        units, units_here = (  # [A, 2]
            np.stack([s["action_center"], s["action_scale"]], axis=1)
            for s in (self.scaling, scaling)
        )
        other = (units != units_here).any(axis=1)
        if other.any():
            i = int(other.argmax())
            (center, scale), (center_here, scale_here) = units[i], units_here[i]
            raise UserError(
                f"{self.source} was trained with other bounds on actions: of action "
                f"{i}, the network's 0 and 1 were {center:g} and {center + scale:g}, "
                f"here {center_here:g} and {center_here + scale_here:g}; leave "
                f"init_from out, or set --config.env_name={self.env_name}"
            )
        return self.scaling


def load(init_from: str, config: ConfigDict) -> WarmStart:
    """Read what a new run is to begin with, and hold it against its configuration.

    Where `config` has None for episode_len, max_action or reward_scale, the source's is
    set. What is taken over is printed.

    Args:
      init_from: the folder of a run, or of its checkpoints, which stands for the last
        one; one of them (runs/hopper/checkpoints/2000, .../best); or a file that CORL
        saved.
      config: of the new run.

    Raises:
      UserError: there is no such source, or it is of another network than `config`.
    """
    path = user_path(init_from)
    if path.is_file():
        return _from_corl(init_from, path, config)
    if chosen := _chosen(path):
        return _from_run(init_from, chosen, config)
    raise UserError(
        f"config.init_from={init_from}: expected the folder of a run, one of its "
        "checkpoints as in runs/hopper/checkpoints/best, or a file that CORL saved, "
        "and there is none of these"
    )


def _chosen(path: Path) -> Checkpoint | None:
    """Return the checkpoint that `path` stands for; None if it is of no run."""
    # First, for the run's own folder may be checkpoints/hopper.
    if (path / "checkpoints").is_dir():
        return choose(path / "checkpoints", "last")
    if path.name == "checkpoints" and path.is_dir():
        return choose(path, "last")
    of_a_run = path.parent.name == "checkpoints" and path.parent.is_dir()
    if of_a_run and (path.name in ("last", "best") or path.name.isdecimal()):
        return choose(path.parent, path.name)
    return choose(path / "checkpoints", "last") if path.is_dir() else None


def _from_run(source: str, chosen: Checkpoint, config: ConfigDict) -> WarmStart:
    record = chosen.record()
    if (seeds := record["config"].get("num_seeds", 1)) > 1:
        raise UserError(
            f"{source} is a run of {seeds} seeds: a run can begin with one network only"
        )
    # Not by config.from_dict: the run may be older than some of today's keys.
    _agree(source, {**ADDED, **record["config"]}, config)
    scaling = {key: np.asarray(record[key], np.float32) for key in SCALING}
    params = chosen.params(_shapes(config, scaling))
    print(
        f"warm start: parameters and normalisation are those of {source} after "
        f"{chosen.step} updates"
    )
    env_name = record["config"].get("env_name")
    return WarmStart(source, env_name, jax.device_get(params), scaling)


def _from_corl(source: str, path: Path, config: ConfigDict) -> WarmStart:
    saved = read_checkpoint(path)
    if config.max_action is None:
        config.max_action = 1.0  # as in all of D4RL, CORL's data
    _agree(source, saved.network(saved.seq_len or config.seq_len), config)
    scaling = saved.scaling()
    check_shapes(source, saved.params, config, scaling)
    print(
        f"warm start: parameters and normalisation are those of {source}. It does not "
        f"say its num_heads, max_action and reward_scale; {config.num_heads}, "
        f"{config.max_action:g} and {config.reward_scale:g} here have to be those of "
        "the config.yaml beside it"
    )
    return WarmStart(source, None, saved.params, scaling)


def _agree(source: str, before: Mapping[str, Any], config: ConfigDict) -> None:
    """Fill what `config` leaves open from `before`; refuse another network."""
    for key in ("episode_len", "max_action", "reward_scale"):
        if config[key] is None and key in before:
            config[key] = before[key]
            print(f"{key} {before[key]}: that of {source}")
    validate(config)
    if config.reward_scale is None:
        raise UserError(
            f"{source} does not say its reward_scale: give the one of the config.yaml "
            "beside it, --config.reward_scale=..."
        )
    other = [key for key in _NETWORK if key in before and before[key] != config[key]]
    if other:
        theirs = ", ".join(f"{key}={before[key]}" for key in other)
        ours = ", ".join(str(config[key]) for key in other)
        flags = " ".join(f"--config.{key}={before[key]}" for key in other)
        raise UserError(
            f"{source} was trained with {theirs} (here {ours}): set {flags}, or leave "
            "init_from out"
        )
    reward_scale = before.get("reward_scale", config.reward_scale)
    if reward_scale != config.reward_scale:
        print(
            f"reward_scale {config.reward_scale:g}, but {source} was trained with "
            f"{reward_scale:g}: the same return is another number to the network"
        )


def check_shapes(
    source: str, params: Params, config: ConfigDict, scaling: Mapping[str, np.ndarray]
) -> None:
    """Raise a UserError unless parameters are those of the network of `config`."""
    like = flatten_dict(_shapes(config, scaling), sep="/")
    for name, array in flatten_dict(params, sep="/").items():
        if array.shape != like[name].shape:
            raise UserError(
                f"{source} is of another network than ours: {name} has shape "
                f"{array.shape} instead of {like[name].shape}"
            )


def _shapes(config: ConfigDict, scaling: Mapping[str, np.ndarray]) -> Params:
    """Return the shapes of the network that `config` describes."""
    agent = DecisionTransformerAgent.from_config(config, **scaling)
    return jax.eval_shape(agent.init_params, jax.random.key(0))
