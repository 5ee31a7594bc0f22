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
    """Windows of trajectories as the model reads them; zeros past a window's end."""

    states: Array  # [B, T, S] normalised
    actions: Array  # [B, T, A] within ±max_action
    returns_to_go: Array  # [B, T] times reward_scale
    timesteps: Array  # [B, T] int32, counted on through the padding
    mask: Array  # [B, T] 1 where there is data, 0 where there is padding


class Step(NamedTuple):
    """What N environments answer to one action each."""

    observations: Array  # [N, S] float32
    rewards: Array  # [N] float32
    done: Array  # [N] bool: terminated or truncated
