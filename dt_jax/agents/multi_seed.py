"""Agents that differ only in their seed, trained and acting side by side."""

from collections.abc import Mapping
from typing import Any

import jax

from dt_jax.agents.base import Agent, Context, Metrics, Trained, TrainState
from dt_jax.types import Array, Batch, Params


class MultiSeedAgent:
    """An agent whose states and parameters have a leading axis of seeds.

    Episodes are one flat axis of which each seed has an equal share, in order.
    """

    def __init__(self, agent: Agent, num_seeds: int):
        self._agent, self._num_seeds = agent, num_seeds
        self.episode_len = agent.episode_len
        self.conditioned = agent.conditioned

    def init(self, keys: jax.Array) -> TrainState:
        """Return the states before the first update for keys [seeds]."""
        return jax.vmap(self._agent.init)(keys)

    def warm_start(self, state: TrainState, params: Params) -> TrainState:
        """Return the states with parameters of another run, of all seeds."""
        return self._agent.warm_start(state, params)

    def with_stages(
        self, state: TrainState, stages: Mapping[str, Trained]
    ) -> TrainState:
        """Return the states with what they need of the stages, of all seeds."""
        return self._agent.with_stages(state, stages)

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Update each seed on its own batch [seeds, B, ...]."""
        return jax.vmap(self._agent.update)(state, batch)

    def validation_loss(self, params: Params, batch: Batch) -> Array:
        """Return the errors of each seed, on one batch or its own, [seeds, B, T, A]."""
        axes = 0, None if batch.mask.ndim == 2 else 0
        return jax.vmap(self._agent.validation_loss, axes)(params, batch)

    def acting_params(self, state: TrainState) -> Params:
        """Return the acting parameters of all seeds."""
        return self._agent.acting_params(state)

    def start(self, target_returns: Array | None, keys: jax.Array) -> Context:
        """Return the contexts [seeds, N/seeds, ...] of N episodes."""
        return jax.vmap(self._agent.start)(*self._split((target_returns, keys)))

    def act(
        self,
        params: Params,
        context: Context,
        observations: Array,
        rewards: Array,
        done: Array,
    ) -> tuple[Context, Array]:
        """Return actions [N, A] for observations [N, S], rewards and done [N]."""
        inputs = self._split((observations, rewards, done))
        context, actions = jax.vmap(self._agent.act)(params, context, *inputs)
        return context, actions.reshape(-1, actions.shape[-1])

    def _split(self, tree: Any) -> Any:
        """Map [N, ...] to [seeds, N/seeds, ...]."""
        return jax.tree.map(
            lambda x: x.reshape(self._num_seeds, -1, *x.shape[1:]), tree
        )
