"""The arrays that modules exchange, and the letters of their shapes.

B batch, T timesteps, L tokens (3T), D width, H heads, S state, A action, N episodes.
"""

from typing import TYPE_CHECKING, Any, NamedTuple, Union

import numpy as np

if TYPE_CHECKING:  # dt_jax.data imports this module, and must not import JAX
    import jax

Array = Union["jax.Array", np.ndarray]
Params = Any  # a nested dict of arrays, as Flax keeps it
_ABSENT: Any = None


class Batch(NamedTuple):
    """Windows of trajectories as a network reads them; zeros past a trajectory's end.

    An agent names the fields that it reads (`Agent.batch_fields`); the others are None.

    Attributes:
      states: [B, T, S], normalised.
      actions: [B, T, A], within ±max_action.
      returns_to_go: [B, T], times reward_scale.
      timesteps: [B, T] int32, which continue through the padding.
      mask: [B, T], 1 where there is data, 0 in the padding.
      rewards: [B, T], times reward_scale.
      terminals: [B, T], 1 where the step ended the episode by termination.
      next_states: [B, T, S], normalised; zeros at a trajectory's last step, whose
        next state D4RL's files lack.
      has_next: [B, T], 1 where next_states is in the data. A one-step target is valid
        where this or terminals is 1: not at the end by a time limit.
      episode_returns: [B, T], the return of the whole trajectory, times reward_scale;
        the true one also where labels replace returns_to_go.
    """

    states: Array = _ABSENT
    actions: Array = _ABSENT
    returns_to_go: Array = _ABSENT
    timesteps: Array = _ABSENT
    mask: Array = _ABSENT
    rewards: Array = _ABSENT
    terminals: Array = _ABSENT
    next_states: Array = _ABSENT
    has_next: Array = _ABSENT
    episode_returns: Array = _ABSENT


class Step(NamedTuple):
    """The result of one action in each of N environments.

    Attributes:
      observations: [N, S] float32.
      rewards: [N] float32.
      done: [N] bool, terminated or truncated.
    """

    observations: Array
    rewards: Array
    done: Array
