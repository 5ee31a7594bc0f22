"""What a configuration leaves to the data: its keys that are None."""

import math
from typing import Any

from ml_collections import ConfigDict

from dt_jax.data.arrays import column_statistics
from dt_jax.data.registry import NO_LIMIT, DatasetSpec
from dt_jax.data.trajectories import Trajectories

KEYS = (
    "episode_len",
    "max_action",
    "reward_scale",
    "target_returns",
    "holdout_fraction",
)
_HELD_OUT = 0.1
_LEAST_RETURN = 1e-30  # all smaller ones are zeros to float32, once they are squared


Choices = dict[str, tuple[Any, str]]  # key -> value, and why


def from_data(trajectories: Trajectories, spec: DatasetSpec | None) -> Choices:
    """Return what the data suggests for a key, and why, in words.

    Args:
      trajectories: the data.
      spec: the environment, if there is one: its episodes are to fit into
        `episode_len` as well.
    """
    longest = int(trajectories.lengths.max())
    episode_len = longest, "the longest trajectory"
    if spec is not None and longest < spec.max_episode_steps < NO_LIMIT:
        episode_len = spec.max_episode_steps, "the environment's time limit"

    max_action = 1.0, ""
    if spec is None:  # else its bounds are mapped to ±max_action, whatever that is
        actions = column_statistics(trajectories.actions)
        farthest = float(max(actions.max.max(), -actions.min.min()))
        if farthest > 1:
            max_action = farthest, "the largest action"

    returns = trajectories.episode_returns
    best, mean = float(returns.max()), float(returns.mean(dtype="float64"))
    # Of numbers that agree in three digits, one is enough to ask for.
    targets = tuple(dict.fromkeys(float(f"{value:.3g}") for value in (best, mean)))

    largest = float(abs(returns).max())
    scale = 10.0 ** -math.floor(math.log10(max(largest, _LEAST_RETURN)))
    if largest < _LEAST_RETURN:
        scale = 1.0
    return {
        "episode_len": episode_len,
        "max_action": max_action,
        "reward_scale": (scale, f"returns go as far as ±{largest:.3g}"),
        "target_returns": (targets, "the data's best and mean return"),
    }


def fill_in(
    config: ConfigDict, trajectories: Trajectories, spec: DatasetSpec | None
) -> tuple[ConfigDict, list[str]]:
    """Return the configuration without None where the data decides, and what it did.

    Args:
      config: validated.
      trajectories: all of the data.
      spec: the environment, if there is one.

    Returns:
      A locked copy, and a line for each choice.
    """
    choices = from_data(trajectories, spec)
    if spec is not None and config.eval_episodes > 0:
        choices["holdout_fraction"] = 0.0, ""  # episodes are played; nothing to tell
    elif trajectories.num_trajectories == 1:
        choices["holdout_fraction"] = 0.0, "there is but one trajectory"
    else:
        choices["holdout_fraction"] = _HELD_OUT, "no episodes are played"
    open_keys = {key: choices[key] for key in KEYS if config[key] is None}
    filled = ConfigDict(config.to_dict())
    for key, (value, _) in open_keys.items():
        filled[key] = value
    return filled.lock(), told(open_keys)


def told(choices: Choices) -> list[str]:
    """Return a line for each choice that has a reason."""
    return [
        f"{key} {_text(value)}: {why}" for key, (value, why) in choices.items() if why
    ]


def _text(value: float | int | tuple[float, ...]) -> str:
    values = value if isinstance(value, tuple) else (value,)
    return ", ".join(f"{number:g}" for number in values)
