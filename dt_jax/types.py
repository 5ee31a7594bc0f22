"""The arrays that pass between the modules, and the letters of their shapes.

B batch, T timesteps, L tokens (3T), D width, H heads, S state, A action, N episodes.
"""

from typing import TYPE_CHECKING, Any, NamedTuple, Union

import numpy as np

if TYPE_CHECKING:  # dt_jax.data takes its types from here, and no JAX
    import jax

Array = Union["jax.Array", np.ndarray]
Params = Any  # a nested dict of arrays, as Flax keeps it


class Batch(NamedTuple):
    """Windows of trajectories as the model reads them; zeros past a window's end.

    Attributes:
      states: [B, T, S], normalised.
      actions: [B, T, A], within ±max_action.
      returns_to_go: [B, T], times reward_scale.
      timesteps: [B, T] int32, counted on through the padding.
      mask: [B, T], 1 where there is data, 0 where there is padding.
    """

    states: Array
    actions: Array
    returns_to_go: Array
    timesteps: Array
    mask: Array


class Step(NamedTuple):
    """What N environments answer to one action each.

    Attributes:
      observations: [N, S] float32.
      rewards: [N] float32.
      done: [N] bool, terminated or truncated.
    """

    observations: Array
    rewards: Array
    done: Array
