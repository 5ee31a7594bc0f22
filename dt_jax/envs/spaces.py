"""What the spaces of any environment come to, and the units that actions have."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dt_jax.data.registry import NO_LIMIT, DatasetSpec
from dt_jax.utils.errors import UserError

MEND = "mend the environment, or set eval_episodes=0"


def spec_from_spaces(
    env_id: str,
    family: str,
    observation_space: Any,
    action_space: Any,
    max_episode_steps: int | None,
) -> DatasetSpec:
    """Return what is known of an environment that is not D4RL's: no data, no scores.

    Args:
      env_id: its name, as its engine knows it.
      family: the engine, as `dt_jax.envs.make` knows it.
      observation_space: Gymnasium's or gym's.
      action_space: the same.
      max_episode_steps: None where the environment has no limit.

    Raises:
      UserError: a space is no vector of numbers, or actions are not bounded.
    """
    _check_vector(env_id, "observations", observation_space, "fiu")
    _check_vector(env_id, "actions", action_space, "f")  # whole numbers are discrete
    low, high = action_space.low.tolist(), action_space.high.tolist()
    if not (np.isfinite([low, high]).all() and np.less(low, high).all()):
        raise UserError(
            f"{env_id} has actions between {low} and {high}; each needs a finite "
            "smallest value and a greater largest one"
        )
    return DatasetSpec(
        name=env_id,
        family=family,
        url=None,
        max_episode_steps=max_episode_steps or NO_LIMIT,
        observation_size=observation_space.shape[0],
        action_size=action_space.shape[0],
        ref_min=None,
        ref_max=None,
        action_low=tuple(low),
        action_high=tuple(high),
    )


def cannot_build(env_id: str, error: BaseException) -> UserError:
    """Return the one line about an environment whose construction failed."""
    cure = "mend that, or name another environment"
    return _failed(f"{env_id} cannot be built", error, cure)


@contextmanager
def building(env_id: str) -> Iterator[None]:
    """Raise `cannot_build` where constructing or describing an environment fails."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever a missing package leads to
        raise cannot_build(env_id, error) from error


@contextmanager
def playing(env_id: str, when: str) -> Iterator[None]:
    """Raise a UserError for whatever an environment raises, `sys.exit` included."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(f"{env_id} failed {when}", error, MEND) from error


def _failed(what: str, error: BaseException, cure: str) -> UserError:
    why = " ".join(str(error).split())[:300].rstrip(".") or "no reason given"
    return UserError(f"{what}: {type(error).__name__}: {why}; {cure}")


def action_units(
    spec: DatasetSpec | None, action_size: int, max_action: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return center and scale [A] of environment action = center + scale * network's.

    The network's actions lie within ±max_action, the environment's within its bounds.
    For bounds of ±max_action, as in all of D4RL, center is 0 and scale 1: exactly.
    Where rounding would carry ±max_action past a bound, scale is a little smaller.

    Args:
      spec: the environment; with None, the units are the same.
      action_size: A.
      max_action: positive.
    """
    if spec is None:
        return np.zeros(action_size, np.float32), np.ones(action_size, np.float32)
    low = _rounded_up(np.broadcast_to(spec.action_low, action_size))
    high = -_rounded_up(-np.broadcast_to(spec.action_high, action_size))
    most = np.float64(np.float32(max_action))
    center = ((low + high) / 2).astype(np.float32)
    scale = (np.minimum(high - center, center - low) / most).astype(np.float32)
    for _ in range(2):
        reach = scale * most
        past = np.zeros(action_size, bool)
        # XLA may round the product before it adds the center, or only the sum.
        for product in (reach, reach.astype(np.float32)):
            past |= (center + product).astype(np.float32) > high
            past |= (center - product).astype(np.float32) < low
        scale = np.where(past, np.nextafter(scale, np.float32(0)), scale)
    return center, scale


def _rounded_up(values: np.ndarray) -> np.ndarray:
    """Return the float32 numbers at or next above `values`, as float64."""
    near = values.astype(np.float32)
    above = np.nextafter(near, np.float32(np.inf))
    return np.where(near < values, above, near).astype(np.float64)


def _check_vector(env_id: str, what: str, space: Any, dtype_kinds: str) -> None:
    """Raise a UserError unless `space` is a Box [size] of numbers of these kinds."""
    kind = type(space).__name__
    # By the name, for gym's Box is another class than Gymnasium's.
    if "Box" in {parent.__name__ for parent in type(space).__mro__}:
        if len(space.shape) == 1 and space.dtype.kind in dtype_kinds:
            return
        kind += f" of {space.dtype}, shape {space.shape}"
    raise UserError(
        f"{env_id} has {what} of the kind {kind}; only vectors can be used: a Box of "
        "real numbers with one axis"
    )
