"""What agents with a critic share: configuration keys, batches, and updating."""

from typing import ClassVar, Protocol

import jax
import optax

from dt_jax.agents.base import Metrics, TrainState
from dt_jax.agents.optim import apply_gradients
from dt_jax.agents.single_step import SingleStepAgent
from dt_jax.types import Array, Batch, Params
from dt_jax.utils.keys import POSITIVE, POSITIVE_INTEGER, Key, integer, number, or_none

# fmt: off
CRITIC_KEYS = (
    Key("critic_dim", 256, POSITIVE_INTEGER,
        "Width of the hidden layers of Q, V and the policy.", architecture=True),
    Key("critic_layers", 2, integer(0, 100),
        "Hidden layers of Q, V and the policy.", architecture=True),
    Key("discount", 0.99, number("a number from 0 to 1", lambda x: 0 <= x <= 1),
        "Factor of the value of the next state."),
    Key("tau", 0.005, number("a number above 0 and at most 1", lambda x: 0 < x <= 1),
        "Share of Q that the target network takes over in each update."),
    Key("qf_lr", 3e-4, POSITIVE, "Adam's learning rate for Q."),
    Key("actor_lr", 3e-4, POSITIVE,
        "Adam's learning rate for the policy; in iql a cosine decays it to 0 by "
        "update_steps."),
    Key("reward_scale", None, or_none(POSITIVE),
        "Factor from rewards to those that Q and V learn; None: the power of ten that "
        "brings the data's largest return to between 1 and 10.", from_data=True),
)

# Of agents that begin with a run of a critic.
STAGE_KEYS = (
    Key("critic_update_steps", 100_000, POSITIVE_INTEGER, "Updates of the critic."),
    Key("critic_batch_size", 256, POSITIVE_INTEGER,
        "Transitions in one update of the critic."),
)
# fmt: on


class Critic(SingleStepAgent, Protocol):
    """An agent with twin Q and an average of it, which estimates values of states.

    Each loss has gradients only for its own network, so that one gradient of their sum
    makes all of them learn.

    Attributes:
      optimizer: of all networks.
      tau: share of Q that the target takes over in each update.
    """

    batch_fields: ClassVar[tuple[str, ...]] = (
        *("states", "actions", "rewards", "terminals"),
        *("next_states", "has_next", "mask"),
    )
    optimizer: optax.GradientTransformation
    tau: float

    def loss(
        self, params: Params, target: Params, batch: Batch, key: jax.Array
    ) -> tuple[Array, Metrics]:
        """Return the sum of all losses, and the metrics.

        Args:
          params: of each network; those of Q are "critic".
          target: an average of the past "critic".
          batch: [B, 1, ...].
          key: for what is drawn.
        """

    def values(self, params: Params, observations: Array) -> Array:
        """Return V of raw observations [N, S] in units of reward, [N]."""

    def warm_start(self, state: TrainState, params: Params) -> TrainState:
        """Return the state with parameters of another run, the target's included."""
        return state.replace(params=params, extra={"target": params["critic"]})

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Return the state after one more update, and its metrics."""
        target = state.extra["target"]
        key = jax.random.fold_in(state.key, state.step)
        loss = jax.grad(self.loss, has_aux=True)
        grads, metrics = loss(state.params, target, batch, key)
        state = apply_gradients(self.optimizer, state, grads)
        target = optax.incremental_update(state.params["critic"], target, self.tau)
        return state.replace(extra={"target": target}), metrics
