"""All evaluation episodes at once, in one compiled program."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dt_jax.agents.decision_transformer import Context, DecisionTransformerAgent
from dt_jax.envs.base import BatchedEnv, EnvState
from dt_jax.types import Array, Params, Step

# Timesteps in a scan. The while_loop around it looks whether there is more to play;
# the longer the chunk, the rarer that look, and the more idle turns at the end.
CHUNK = 25


class Episodes(NamedTuple):
    """What N episodes came to."""

    returns: Array  # [N] sums of raw rewards
    lengths: Array  # [N] int32 environment steps


class _Carry(NamedTuple):
    timestep: Array  # [] int32
    env_state: EnvState
    answer: Step  # the environments' last one
    context: Context
    running: Array  # [N] bool
    episodes: Episodes


def make_rollout(
    agent: DecisionTransformerAgent, env: BatchedEnv, episode_len: int
) -> Callable[[Params, EnvState, Array, Array], Episodes]:
    """Return the jitted `rollout(params, env_state, observations, target_returns)`.

    It takes what `env.reset()` returned and a target return for each episode, [N] in
    the environment's units, and plays every episode to its end or for episode_len
    steps. Memory holds windows of T timesteps, never whole histories.
    """

    def play(params: Params, carry: _Carry) -> _Carry:
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

    def unfinished(carry: _Carry) -> Array:
        return carry.running.any() & (carry.timestep < episode_len)

    @jax.jit
    def rollout(
        params: Params, env_state: EnvState, observations: Array, target_returns: Array
    ) -> Episodes:
        def play_or_rest(carry: _Carry, _: None) -> tuple[_Carry, None]:
            # Inside the last chunk there may be nothing left to play.
            carry = jax.lax.cond(
                unfinished(carry), partial(play, params), lambda carry: carry, carry
            )
            return carry, None

        def chunk(carry: _Carry) -> _Carry:
            return jax.lax.scan(play_or_rest, carry, length=CHUNK)[0]

        n, dtype = observations.shape[0], observations.dtype
        start = _Carry(
            timestep=jnp.zeros((), jnp.int32),
            env_state=env_state,
            answer=Step(observations, jnp.zeros(n, dtype), jnp.zeros(n, bool)),
            context=agent.start(target_returns),
            running=jnp.ones(n, bool),
            episodes=Episodes(jnp.zeros(n, dtype), jnp.zeros(n, jnp.int32)),
        )
        return jax.lax.while_loop(unfinished, chunk, start).episodes

    return rollout
