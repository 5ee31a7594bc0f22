"""All evaluation episodes at once, in compiled chunks of timesteps."""

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dt_jax.agents.dt import Context, DecisionTransformerAgent
from dt_jax.agents.multi_seed import ManySeeds
from dt_jax.envs.base import EnvState
from dt_jax.types import Array, Params, Step

# Timesteps in a scan. Between two chunks Python looks whether there is more to play, or
# a reason to stop; the longer the chunk, the rarer that is, and the more idle turns at
# the end.
CHUNK = 25


class Episodes(NamedTuple):
    """What N episodes came to.

    Attributes:
      returns: [N], sums of raw rewards.
      lengths: [N] int32, environment steps.
    """

    returns: Array
    lengths: Array


class _Carry(NamedTuple):
    timestep: Array  # [] int32
    env_state: EnvState
    answer: Step  # the environments' last one
    context: Context
    running: Array  # [N] bool
    episodes: Episodes


class Stepped(Protocol):
    """What is asked of an environment: see `BatchedEnv.step`."""

    def step(self, state: EnvState, actions: Array) -> tuple[EnvState, Step]:
        """Advance each episode by one action [N, A]."""


class Rollout(Protocol):
    """What `make_rollout` returns."""

    def __call__(
        self,
        params: Params,
        env_state: EnvState,
        observations: Array,
        target_returns: Array,
        between_chunks: Callable[[], None] = ...,
    ) -> Episodes:
        """Play every episode to its end, or for episode_len steps.

        Args:
          params: the network's parameters.
          env_state: as `env.reset()` returned it.
          observations: [N, S], the same.
          target_returns: [N], in the environment's units.
          between_chunks: called after each CHUNK of timesteps; what it raises ends the
            rollout.
        """


def make_rollout(
    agent: DecisionTransformerAgent | ManySeeds, env: Stepped, episode_len: int
) -> Rollout:
    """Return what plays all episodes of `env` at once, in compiled chunks of timesteps.

    Memory holds windows of T timesteps, never whole histories. Several threads may call
    it, each with an `env_state` of its own.
    """
    begin = jax.jit(partial(_begin, agent))

    def unfinished(carry: _Carry) -> Array:
        return carry.running.any() & (carry.timestep < episode_len)

    @partial(jax.jit, donate_argnums=1)
    def chunk(params: Params, carry: _Carry) -> tuple[_Carry, Array]:
        play = partial(_play, agent, env, params)

        def play_or_rest(carry: _Carry, _: None) -> tuple[_Carry, None]:
            # Inside the last chunk there may be nothing left to play.
            carry = jax.lax.cond(unfinished(carry), play, lambda carry: carry, carry)
            return carry, None

        carry = jax.lax.scan(play_or_rest, carry, length=CHUNK)[0]
        return carry, unfinished(carry)

    compiling = Lock()
    compiled: list[Any] = []

    def program(params: Params, carry: _Carry) -> Any:
        with compiling:  # another thread may play too
            if not compiled:
                compiled.append(chunk.lower(params, carry).compile())
        return compiled[0]

    def rollout(
        params: Params,
        env_state: EnvState,
        observations: Array,
        target_returns: Array,
        between_chunks: Callable[[], None] = lambda: None,
    ) -> Episodes:
        carry = begin(env_state, observations, target_returns)
        play_on = program(params, carry)
        more = True
        while more:
            carry, more = play_on(params, carry)
            jax.block_until_ready(more)  # so that what is raised leaves nothing behind
            between_chunks()
        return carry.episodes

    return rollout


def _begin(
    agent: DecisionTransformerAgent | ManySeeds,
    env_state: EnvState,
    observations: Array,
    target_returns: Array,
) -> _Carry:
    """Return what there is before the first timestep."""
    n, dtype = observations.shape[0], observations.dtype
    return _Carry(
        timestep=jnp.zeros((), jnp.int32),
        env_state=env_state,
        answer=Step(observations, jnp.zeros(n, dtype), jnp.zeros(n, bool)),
        context=agent.start(target_returns),
        running=jnp.ones(n, bool),
        episodes=Episodes(jnp.zeros(n, dtype), jnp.zeros(n, jnp.int32)),
    )


def _play(
    agent: DecisionTransformerAgent | ManySeeds,
    env: Stepped,
    params: Params,
    carry: _Carry,
) -> _Carry:
    """Advance all episodes by one timestep; those that have ended don't count."""
    context, actions = agent.act(
        params,
        carry.context,
        carry.answer.observations,
        carry.answer.rewards,
        jnp.zeros_like(carry.running),
    )
    env_state, answer = env.step(carry.env_state, actions)
    returns, lengths = carry.episodes
    return _Carry(
        timestep=carry.timestep + 1,
        env_state=env_state,
        answer=answer,
        context=context,
        running=carry.running & ~answer.done,
        episodes=Episodes(
            returns=jnp.where(carry.running, returns + answer.rewards, returns),
            lengths=lengths + carry.running.astype(lengths.dtype),
        ),
    )
