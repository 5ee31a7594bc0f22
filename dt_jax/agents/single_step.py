"""What agents that act on the current state alone have in common."""

from typing import ClassVar, Protocol

import jax

from dt_jax.agents.base import Agent, Context
from dt_jax.agents.discrete import choose
from dt_jax.agents.losses import action_error
from dt_jax.types import Array, Batch, Params


class SingleStepAgent(Agent, Protocol):
    """An agent without a memory and without a target return."""

    context_len: ClassVar[int] = 1  # type: ignore[misc]
    conditioned: ClassVar[bool] = False

    def predict(self, params: Params, states: Array) -> Array:
        """Return the actions [..., A] in states [..., S], both in the network's units.

        Without noise, for acting. Of discrete actions, the logits.
        """

    @property
    def validation_metric(self) -> str:  # type: ignore[override]
        """What `validation_loss` measures."""
        return "action_nll" if self.normalizer.discrete else "action_mse"

    def validation_loss(self, params: Params, batch: Batch) -> Array:
        """Return the error of each action, 0 in the padding; see `Agent`."""
        predicted = self.predict(params, batch.states)
        errors = action_error(predicted, batch.actions, self.normalizer.discrete)
        return errors * batch.mask[..., None]

    def start(self, target_returns: Array | None, keys: jax.Array) -> Context:
        """Return a context for N episodes, of which nothing is remembered."""
        return ()

    def act(
        self,
        params: Params,
        context: Context,
        observations: Array,
        rewards: Array,
        done: Array,
    ) -> tuple[Context, Array]:
        """Return the context and the actions; see `Agent.act`."""
        states = self.normalizer.normalize_states(observations)
        actions = self.predict(params, states)
        if self.normalizer.discrete:
            actions = choose(actions)
        return context, self.normalizer.to_environment(actions)
