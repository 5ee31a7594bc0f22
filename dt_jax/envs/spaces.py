"""Observation and action spaces of any environment, and the scaling of its actions."""

from typing import Any

import numpy as np

from dt_jax.data.registry import NO_LIMIT, EnvSpec
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
      UserError: a space is not a vector of numbers, or actions are unbounded.
    """
    _check_vector(env_id, "observations", observation_space, "fiu")
    _check_vector(env_id, "actions", action_space, "f")  # integers are discrete
    low, high = action_space.low.tolist(), action_space.high.tolist()
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
        action_size=action_space.shape[0],
        ref_min=None,
        ref_max=None,
        action_low=tuple(low),
        action_high=tuple(high),
    )


def _check_vector(env_id: str, what: str, space: Any, dtype_kinds: str) -> None:
    """Raise a UserError unless `space` is a Box [size] of the given dtype kinds."""
    kind = type(space).__name__
    # By name, because gym's Box is not Gymnasium's class.
    if "Box" in {parent.__name__ for parent in type(space).__mro__}:
        if len(space.shape) == 1 and space.dtype.kind in dtype_kinds:
            return
        kind += f" of {space.dtype}, shape {space.shape}"
    raise UserError(
        f"{env_id} has {what} of the kind {kind}; only vectors are supported: a Box of "
        "real numbers with one axis"
    )


def action_units(
    spec: EnvSpec | None, action_size: int, max_action: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return center and scale [A] of environment action = center + scale * network's.

    They map the network's range, ±max_action, to the environment's bounds. Bounds of
    ±max_action, as in all of D4RL, give exactly center 0 and scale 1. The scale is
    slightly smaller where rounding would carry ±max_action past a bound.

    Args:
      spec: the environment; None gives center 0 and scale 1.
      action_size: A.
      max_action: positive.
    """
    if spec is None:
        return np.zeros(action_size, np.float32), np.ones(action_size, np.float32)
    low = _rounded_up(np.broadcast_to(spec.action_low, action_size))
    high = -_rounded_up(-np.broadcast_to(spec.action_high, action_size))
    limit = np.float64(np.float32(max_action))
    center = ((low + high) / 2).astype(np.float32)
    scale = (np.minimum(high - center, center - low) / limit).astype(np.float32)
    for _ in range(2):
        reach = scale * limit
        past = np.zeros(action_size, bool)
        # XLA may round the product before it adds the center, or only the sum.
        for product in (reach, reach.astype(np.float32)):
            past |= (center + product).astype(np.float32) > high
            past |= (center - product).astype(np.float32) < low
        scale = np.where(past, np.nextafter(scale, np.float32(0)), scale)
    return center, scale


def _rounded_up(values: np.ndarray) -> np.ndarray:
    """Return the smallest float32 numbers >= `values`, as float64."""
    near = values.astype(np.float32)
    above = np.nextafter(near, np.float32(np.inf))
    return np.where(near < values, above, near).astype(np.float64)
