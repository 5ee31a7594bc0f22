"""Everything that an update changes, as one pytree."""

import flax.struct
import jax
import optax

from dt_jax.types import Array, Params


class TrainState(flax.struct.PyTreeNode):
    """What training carries from step to step and a checkpoint keeps.

    Attributes:
      step: updates completed, int32.
      params: the network's.
      opt_state: the optimiser's.
      key: the root of the dropout keys; each step folds its own number in.
    """

    step: Array
    params: Params
    opt_state: optax.OptState
    key: jax.Array
