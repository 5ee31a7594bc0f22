"""Everything that an update changes, as one pytree."""

from typing import Any

import flax.struct
import jax
import optax

from dt_jax.checkpoint import Checkpoint
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

    @property
    def beside_params(self) -> dict[str, Any]:
        """What a checkpoint keeps apart, for only training goes on from it."""
        return {"step": self.step, "opt_state": self.opt_state, "key": self.key}

    @classmethod
    def restored(cls, checkpoint: Checkpoint, like: "TrainState") -> "TrainState":
        """Return the state of a checkpoint, shaped and placed as `like`."""
        return cls(
            params=checkpoint.params(like.params),
            **checkpoint.train(like.beside_params),
        )
