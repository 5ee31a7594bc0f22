"""Observation and action spaces of any environment, and the scaling of its actions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dt_jax.data.arrays import column_statistics
from dt_jax.data.registry import NO_LIMIT, EnvSpec, is_d4rl
from dt_jax.utils.errors import UserError


def spec_from_spaces(
    env_id: str,
    engine: str,
    observation_space: Any,
    action_space: Any,
    max_episode_steps: int | None,
) -> EnvSpec:
    """Return the spec of an environment outside D4RL: without data and scores.

    Args:
      env_id: the engine's name of the environment.
      engine: a key of `dt_jax.envs.ENGINES`.
      observation_space: a space of Gymnasium or gym.
      action_space: the same.
      max_episode_steps: None if the environment has no time limit.

    Raises:
      UserError: observations are not vectors of numbers, or actions neither bounded
        vectors nor one of N choices.
    """
    _check_vector(env_id, "observations", observation_space, "fiu")
    discrete = is_discrete(action_space)
    if discrete and action_space.start != 0:
        raise UserError(
            f"{env_id} has actions from {action_space.start} on; only a Discrete space "
            "that starts at 0 is supported: shift it with a wrapper"
        )
    if not discrete:
        _check_vector(env_id, "actions", action_space, "f")
    low, high = (bound.tolist() for bound in action_bounds(action_space))
    if not (np.isfinite([low, high]).all() and np.less(low, high).all()):
        raise UserError(
            f"{env_id} has actions between {low} and {high}; each action needs a "
            "finite lower bound and a greater, finite upper bound"
        )
    return EnvSpec(
        name=env_id,
        family=env_id,
        engine=engine,
        env_id=env_id,
        url=None,
        max_episode_steps=max_episode_steps or NO_LIMIT,
        observation_size=observation_space.shape[0],
        action_size=len(low),
        ref_min=None,
        ref_max=None,
        action_low=tuple(low),
        action_high=tuple(high),
        discrete=discrete,
    )


def is_discrete(space: Any) -> bool:
    """Return whether a space of Gymnasium or gym is one of N choices."""
    # By name, because gym's classes are not Gymnasium's.
    return "Discrete" in {parent.__name__ for parent in type(space).__mro__}


def action_bounds(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper bounds of actions [A], one-hot if discrete."""
    if is_discrete(space):
        return np.zeros(int(space.n)), np.ones(int(space.n))
    return space.low, space.high


def _check_vector(env_id: str, what: str, space: Any, dtype_kinds: str) -> None:
    """Raise a UserError unless `space` is a Box [size] of the given dtype kinds."""
    kind = type(space).__name__
    if "Box" in {parent.__name__ for parent in type(space).__mro__}:
        if len(space.shape) == 1 and space.dtype.kind in dtype_kinds:
            return
        kind += f" of {space.dtype}, shape {space.shape}"
    supported = "a Box of real numbers with one axis"
    if what == "actions":
        supported += ", or Discrete; a wrapper can number all combinations"
    elif is_discrete(space):
        supported += "; gymnasium.wrappers.FlattenObservation makes one-hot vectors"
    raise UserError(
        f"{env_id} has {what} of the kind {kind}; only vectors are supported: "
        + supported
    )


class ActionRange(NamedTuple):
    """The range of each action number that the agent can produce."""

    low: np.ndarray  # [A] float64
    high: np.ndarray  # [A] float64, the same as `low` for a constant number
    narrow: np.ndarray  # [A] bool, whether it is the data's within wider bounds


def action_range(spec: EnvSpec | None, actions: np.ndarray) -> ActionRange:
    """Return the environment's bounds, or the range of the data where that is better.

    Without an environment it is the data's. With one, a number of which the data uses
    less than a tenth of its bounds also has the range of the data: else its values
    would all be about the same to the network. D4RL's environments always have their
    bounds, as in CORL.

    Args:
      spec: the environment, if any.
      actions: [M, A] of the data.
    """
    size = actions.shape[1]
    if spec is None:
        least, most, *_ = column_statistics(actions)
        return ActionRange(least, most, np.zeros(size, bool))
    low, high = spec.action_bounds
    if is_d4rl(spec):
        return ActionRange(low, high, np.zeros(size, bool))
    least, most = np.clip(column_statistics(actions)[:2], low, high)
    narrow = most - least < 0.1 * (high - low)
    # A constant number in the middle of a range within the bounds, of 2 at most.
    room = np.where(least == most, np.minimum(1, 0.05 * (high - low)), 0)
    least = np.clip(least - room, low, high - 2 * room)
    most = np.maximum(most, least + 2 * room)
    return ActionRange(
        np.where(narrow, least, low), np.where(narrow, most, high), narrow
    )


def action_units(
    low: np.ndarray, high: np.ndarray, max_action: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return center and scale [A] of environment action = center + scale * network's.

    They map the network's range, ±max_action, to low and high. A range of ±max_action,
    as in all of D4RL, gives exactly center 0 and scale 1. The scale is slightly smaller
    where rounding would carry ±max_action out of the range, and 1 for a range of a
    single value.

    Args:
      low: [A], the lower ends.
      high: [A], the upper ends.
      max_action: positive.
    """
    low, high = _rounded_up(np.asarray(low)), -_rounded_up(-np.asarray(high))
    limit = np.float64(np.float32(max_action))
    center = ((low + high) / 2).astype(np.float32)
    scale = (np.minimum(high - center, center - low) / limit).astype(np.float32)
    for _ in range(2):
        reach = scale * limit
        past = np.zeros(scale.shape, bool)
        # XLA may round the product before it adds the center, or only the sum.
        for product in (reach, reach.astype(np.float32)):
            past |= (center + product).astype(np.float32) > high
            past |= (center - product).astype(np.float32) < low
        scale = np.where(past, np.nextafter(scale, np.float32(0)), scale)
    # Below the smallest normal number, XLA divides by 0.
    return center, np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale)


def check_bounds(
    run: str | Path,
    trained: Sequence[Sequence[float]] | None,
    spec: EnvSpec | None,
    remedy: str,
) -> None:
    """Raise a UserError if an environment has other action bounds than a training's.

    Args:
      run: of the training, for the error message.
      trained: its environment's bounds, [2, A]; None if it had none, or is unknown.
      spec: the environment, if any.
      remedy: what to do.
    """
    if trained is None or spec is None:
        return
    before = np.asarray(trained, np.float32)
    now = spec.action_bounds.astype(np.float32)
    differs = (before != now).any(axis=0)
    if differs.any():
        i = int(differs.argmax())
        raise UserError(
            f"{run} was trained with other bounds on actions: number {i} was between "
            f"{before[0, i]:g} and {before[1, i]:g}, in {spec.name} it is between "
            f"{now[0, i]:g} and {now[1, i]:g}; {remedy}"
        )


def _rounded_up(values: np.ndarray) -> np.ndarray:
    """Return the smallest float32 numbers >= `values`, as float64."""
    near = values.astype(np.float32)
    above = np.nextafter(near, np.float32(np.inf))
    return np.where(near < values, above, near).astype(np.float64)
