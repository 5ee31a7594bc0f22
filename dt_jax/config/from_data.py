"""Values that a configuration leaves to the data: its keys that are None."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dt_jax.config.keys import keys_of
from dt_jax.data.labels import ROUNDING, Labels, at_window_ends
from dt_jax.data.registry import NO_LIMIT, EnvSpec
from dt_jax.data.trajectories import Trajectories

_HOLDOUT_FRACTION = 0.1
_MIN_RETURN = 1e-30  # smaller ones are zero in float32 once they are squared
_MIN_SCALED, _MAX_SCALED = 1e-3, 1e5  # returns that a network distinguishes
# A target is far outside the data's returns at this multiple of their size or range.
# CORL's 12,000 for halfcheetah is not: random to medium data returns about 5,000.
_FAR = 3

Choices = dict[str, tuple[Any, str]]  # key -> value, and the reason


def from_data(
    trajectories: Trajectories, spec: EnvSpec | None, labels: Sequence[Labels] = ()
) -> Choices:
    """Return what the data suggests for keys, with the reasons.

    An environment's episodes have to fit into `episode_len` as well. An agent that is
    trained on labels is asked for labels.

    Args:
      trajectories: the data.
      spec: the environment, if any.
      labels: of each seed, or none.
    """
    longest = int(trajectories.lengths.max())
    episode_len = longest, "the longest trajectory"
    if spec is not None and longest < spec.max_episode_steps < NO_LIMIT:
        episode_len = spec.max_episode_steps, "the environment's time limit"

    returns, within = _achievable_returns(trajectories, spec), ""
    if count_too_long(trajectories, spec):
        within = " within the environment's time limit"
    best = float(returns.max())
    targets = _best_and_mean(returns), f"the data's best and mean return{within}"
    if labels:
        first = [at_window_ends(each)[trajectories.starts] for each in labels]
        mean = np.sort(first).mean(axis=0, dtype=np.float64)  # over seeds, by rank
        why = "the largest and mean label of a first step"
        why += ", mean over seeds" if len(labels) > 1 else ""
        targets = _best_and_mean(mean), why

    largest = float(abs(trajectories.episode_returns).max())
    scale = 10.0 ** -math.floor(math.log10(max(largest, _MIN_RETURN)))
    if largest < _MIN_RETURN:
        scale = 1.0
    low, high = float(returns.min()), best
    if spec is not None and spec.ref_min is not None and spec.ref_max is not None:
        low, high = spec.ref_min, spec.ref_max
    return {
        "episode_len": episode_len,
        "max_action": (1.0, ""),  # any range of actions is mapped to ±max_action
        "reward_scale": (scale, f"returns reach ±{largest:.3g}"),
        "target_returns": targets,
        "best_return": (best, ""),
        "return_range": (high - low or 1.0, ""),
    }


def _best_and_mean(returns: np.ndarray) -> tuple[float, ...]:
    """Return the largest and the mean of returns, rounded; one number if equal.

    To three digits, or to as many as tell returns apart.
    """
    spread, digits = float(np.ptp(returns)), 3
    if spread:
        digits = max(3, 2 + math.ceil(math.log10(abs(returns).max() / spread)))
    both = returns.max(), returns.mean()
    return tuple(dict.fromkeys(float(f"{value:.{digits}g}") for value in both))


def count_too_long(trajectories: Trajectories, spec: EnvSpec | None) -> int:
    """Return how many trajectories are too long to be played in the environment.

    By more than one step: D4RL's own antmaze files have one more.
    """
    if spec is None:
        return 0
    return int(np.count_nonzero(trajectories.lengths > spec.max_episode_steps + 1))


def _achievable_returns(trajectories: Trajectories, spec: EnvSpec | None) -> np.ndarray:
    """Return each trajectory's return within the time limit, [K] float64."""
    limit = NO_LIMIT if spec is None else spec.max_episode_steps
    return trajectories.returns_within(limit)


def return_warnings(
    config: ConfigDict, trajectories: Trajectories, spec: EnvSpec | None
) -> list[str]:
    """Return a warning for each reason for which conditioning on returns would fail.

    Args:
      config: with nothing left to the data, of an agent that is conditioned on returns.
      trajectories: the data.
      spec: the environment, if any.
    """
    lines = []
    if spec is not None and count_too_long(trajectories, spec):
        lines.append(
            f"trajectories have up to {trajectories.lengths.max():,} steps, but "
            f"episodes of {spec.name} end after {spec.max_episode_steps:,}: returns of "
            "more steps cannot be achieved; target_returns=None takes those of "
            f"{spec.max_episode_steps:,} steps"
        )
    returns = trajectories.episode_returns.astype(np.float64)
    largest, spread = float(abs(returns).max()), float(np.ptp(returns))
    reward_scale = config.get("reward_scale", 1.0)
    scaled = reward_scale * largest
    if scaled and not _MIN_SCALED <= scaled <= _MAX_SCALED:
        lines.append(
            f"reward_scale={reward_scale:g} brings the largest return, "
            f"{largest:.3g}, to {scaled:.3g}, where the network does not distinguish "
            "returns; set reward_scale=None to take it from the data"
        )
    elif scaled and 0 < min(reward_scale, 1 / largest) * spread < _MIN_SCALED:
        offset = float(returns.sum() / trajectories.num_transitions)
        lines.append(
            f"returns differ by only {spread:.3g} and reach {largest:.3g}, so that the "
            "network does not distinguish them; subtract an offset from each reward, "
            f"such as the mean reward, {offset:.6g}"
        )
    if spec is not None and config.eval_episodes:
        returns = _achievable_returns(trajectories, spec)
        if line := target_warning(config.target_returns, returns.min(), returns.max()):
            lines.append(line)
    return lines


def label_warning(
    config: ConfigDict,
    trajectories: Trajectories,
    spec: EnvSpec | None,
    labels: Sequence[Labels],
) -> str | None:
    """Return a warning about a critic's labels that no rewards allow, or None.

    A critic does not know the time, so that near a time limit a label may be above
    what the remaining steps can return. Above what a whole episode can, it is wrong.

    Args:
      config: with nothing left to the data.
      trajectories: the data.
      spec: the environment, if any.
      labels: of each seed.
    """
    largest = max(float(at_window_ends(each).max()) for each in labels)
    reward = float(trajectories.rewards.max())
    time_limit = NO_LIMIT if spec is None else spec.max_episode_steps
    steps = max(min(config.episode_len, time_limit), int(trajectories.lengths.max()))
    limit = max(reward, 0.0) * steps
    if largest <= limit + ROUNDING * float(abs(trajectories.returns_to_go).max()):
        return None
    return (
        f"the largest label is {largest:.4g}, but rewards of at most {reward:.4g} in "
        f"{steps:,} steps return at most {limit:.4g}: the critic promises more than "
        "rewards allow; increase critic_update_steps, and set discount=1 only where "
        "episodes end by themselves"
    )


def target_warning(targets: Sequence[float], least: float, best: float) -> str | None:
    """Return a warning about targets far outside the data's returns, or None."""
    margin = _FAR * max(best - least, abs(best), abs(least))
    far = [t for t in targets if not least - margin <= t <= best + margin]
    if not far:
        return None
    return (
        f"target_returns {', '.join(f'{t:g}' for t in far)} are far outside the data's "
        f"returns, {least:.3g} to {best:.3g}: the network has seen nothing like them"
    )


def fill_in(
    config: ConfigDict,
    trajectories: Trajectories,
    spec: EnvSpec | None,
    labels: Sequence[Labels] = (),
) -> tuple[ConfigDict, list[str]]:
    """Return a locked copy with the data's values, and a line for each choice."""
    choices = from_data(trajectories, spec, labels)
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
        shown = ", ".join(f"{number:.10g}" for number in values)
        lines += [f"{key} {shown}: {why}"] if why else []
    return lines
