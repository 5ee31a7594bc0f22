"""What every agent has: the training state."""

from typing import Any

import flax.struct
import jax
import optax

from dt_jax.types import Array, Params


class TrainState(flax.struct.PyTreeNode):
    """Everything that an update changes, as one pytree.

    Attributes:
      step: updates completed, int32.
      params: the network's parameters.
      opt_state: the optimiser's state.
      key: the root of the dropout keys; each update folds its own step in.
    """

    step: Array
    params: Params
    opt_state: optax.OptState
    key: jax.Array

    @property
    def beside_params(self) -> dict[str, Any]:
        """The part that a checkpoint stores apart, for only training needs it."""
        return {"step": self.step, "opt_state": self.opt_state, "key": self.key}
