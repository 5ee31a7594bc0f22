"""Agents that differ in their seed alone, trained and acting side by side."""

from dataclasses import dataclass
from typing import Any

import jax

from dt_jax.agents.dt import Context, DecisionTransformerAgent
from dt_jax.types import Array, Params


@dataclass(frozen=True)
class ManySeeds:
    """Acts like the agent, with parameters that have a leading axis of seeds.

    Episodes are one flat axis of which each seed has its share: the first seed's, then
    the second's, and so on.
    """

    agent: DecisionTransformerAgent
    num_seeds: int

    def start(self, target_returns: Array) -> Context:
        """Return the empty contexts [seeds, N/seeds, ...] of N episodes; see agent."""
        return jax.vmap(self.agent.start)(self._apart(target_returns))

    def act(
        self,
        params: Params,
        context: Context,
        observations: Array,
        rewards: Array,
        done: Array,
    ) -> tuple[Context, Array]:
        """Choose the actions [N, A] after observations [N, S], rewards and done [N]."""
        answers = self._apart((observations, rewards, done))
        context, actions = jax.vmap(self.agent.act)(params, context, *answers)
        return context, actions.reshape(-1, actions.shape[-1])

    def _apart(self, tree: Any) -> Any:
        """Map [N, ...] to [seeds, N/seeds, ...]."""
        return jax.tree.map(lambda x: x.reshape(self.num_seeds, -1, *x.shape[1:]), tree)
