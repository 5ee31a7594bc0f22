"""Values that a configuration leaves to the data: its keys that are None."""

import math
from typing import Any

from ml_collections import ConfigDict

from dt_jax.config.keys import keys_of
from dt_jax.data.arrays import column_statistics
from dt_jax.data.registry import NO_LIMIT, EnvSpec
from dt_jax.data.trajectories import Trajectories

_HOLDOUT_FRACTION = 0.1
_MIN_RETURN = 1e-30  # smaller ones are zero in float32 once they are squared

Choices = dict[str, tuple[Any, str]]  # key -> value, and the reason


def from_data(trajectories: Trajectories, spec: EnvSpec | None) -> Choices:
    """Return what the data suggests for keys, with the reasons.

    An environment's episodes have to fit into `episode_len` as well.
    """
    longest = int(trajectories.lengths.max())
    episode_len = longest, "the longest trajectory"
    if spec is not None and longest < spec.max_episode_steps < NO_LIMIT:
        episode_len = spec.max_episode_steps, "the environment's time limit"

    max_action = 1.0, ""
    if spec is None:  # else the environment's bounds are mapped to ±max_action
        actions = column_statistics(trajectories.actions)
        farthest = float(max(actions.max.max(), -actions.min.min()))
        if farthest > 1:
            max_action = farthest, "the largest action"

    returns = trajectories.episode_returns
    best, mean = float(returns.max()), float(returns.mean(dtype="float64"))
    # Of targets that agree in three digits one is enough.
    targets = tuple(dict.fromkeys(float(f"{value:.3g}") for value in (best, mean)))

    largest = float(abs(returns).max())
    scale = 10.0 ** -math.floor(math.log10(max(largest, _MIN_RETURN)))
    if largest < _MIN_RETURN:
        scale = 1.0
    return {
        "episode_len": episode_len,
        "max_action": max_action,
        "reward_scale": (scale, f"returns reach ±{largest:.3g}"),
        "target_returns": (targets, "the data's best and mean return"),
    }


def fill_in(
    config: ConfigDict, trajectories: Trajectories, spec: EnvSpec | None
) -> tuple[ConfigDict, list[str]]:
    """Return a locked copy with the data's values, and a line for each choice."""
    choices = from_data(trajectories, spec)
    choices["holdout_fraction"] = _HOLDOUT_FRACTION, "no environment is evaluated"
    if spec is not None and config.eval_episodes > 0:
        choices["holdout_fraction"] = 0.0, ""
    elif trajectories.num_trajectories == 1:
        choices["holdout_fraction"] = 0.0, "there is only one trajectory"
    keys = keys_of(config.agent)
    open_keys = {
        name: choices[name]
        for name, key in keys.items()
        if key.from_data and config[name] is None
    }
    filled = ConfigDict(config.to_dict())
    for key, (value, _) in open_keys.items():
        keys[key].validate(value)  # or the run's record could not be read
        filled[key] = value
    return filled.lock(), describe_choices(open_keys)


def describe_choices(choices: Choices) -> list[str]:
    """Return a line for each choice that has a reason."""
    lines = []
    for key, (value, why) in choices.items():
        values = value if isinstance(value, tuple) else (value,)
        shown = ", ".join(f"{number:g}" for number in values)
        lines += [f"{key} {shown}: {why}"] if why else []
    return lines
