"""Rollouts: all episodes at once, in compiled chunks of timesteps."""

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dt_jax.agents.base import Agent, Context
from dt_jax.agents.multi_seed import MultiSeedAgent
from dt_jax.envs.base import BatchedEnv, EnvGroup, EnvState
from dt_jax.types import Array, Params, Step

# Timesteps in one compiled call. Between two calls Python checks whether episodes are
# running and whether to stop: longer chunks check less often, and idle more at the end.
CHUNK = 25


class Recording(NamedTuple):
    """Every step of N episodes; what follows an episode's end is not part of it."""

    observations: Array  # [T, N, S], before each action
    actions: Array  # [T, N, A], in the environment's units
    rewards: Array  # [T, N]


class Episodes(NamedTuple):
    """The results of N episodes."""

    returns: Array  # [N], sums of raw rewards
    lengths: Array  # [N] int32, environment steps
    recording: Recording | None = None  # every step, if the rollout records


class _Carry(NamedTuple):
    timestep: Array  # [] int32
    env_state: EnvState
    last: Step  # the environments' last result
    context: Context
    running: Array  # [N] bool
    returns: Array  # [N]
    lengths: Array  # [N]


class Rollout:
    """Plays all episodes of an environment at once.

    Episodes are cut off after `episode_len` steps. Memory holds the agent's contexts,
    never whole histories unless they are recorded. Several threads may call it, each
    with an `env_state` of its own.
    """

    def __init__(
        self,
        agent: Agent | MultiSeedAgent,
        env: BatchedEnv | EnvGroup,
        episode_len: int,
        record: bool = False,
    ):
        self._record = record
        self._start = jax.jit(partial(_start, agent))

        def unfinished(carry: _Carry) -> Array:
            return carry.running.any() & (carry.timestep < episode_len)

        def chunk(params: Params, carry: _Carry) -> tuple[_Carry, Array, Any]:
            step = partial(_step, agent, env, params, record=record)

            def step_or_idle(carry: _Carry, _: None) -> tuple[_Carry, Any]:
                # The last chunk may be longer than the episodes.
                nothing = None
                if record:
                    shapes = jax.eval_shape(step, carry)[1]
                    nothing = jax.tree.map(
                        lambda x: jnp.zeros(x.shape, x.dtype), shapes
                    )
                return jax.lax.cond(
                    unfinished(carry), step, lambda carry: (carry, nothing), carry
                )

            carry, recorded = jax.lax.scan(step_or_idle, carry, length=CHUNK)
            return carry, unfinished(carry), recorded

        self._chunk = jax.jit(chunk, donate_argnums=1)
        self._compiling = Lock()
        self._compiled: Any = None

    def __call__(
        self,
        params: Params,
        env_state: EnvState,
        observations: Array,
        target_returns: Array | None,
        keys: jax.Array,
        between_chunks: Callable[[], None] = lambda: None,
    ) -> Episodes:
        """Play every episode to its end, or for episode_len steps.

        Args:
          params: the agent's acting parameters.
          env_state: as `env.reset()` returned it.
          observations: [N, S], the same.
          target_returns: [N], in the environment's units; None without.
          keys: [N] random keys.
          between_chunks: called after each CHUNK of timesteps; an exception that it
            raises ends the rollout.
        """
        carry = self._start(env_state, observations, target_returns, keys)
        with self._compiling:  # by one thread, for all
            if self._compiled is None:
                self._compiled = self._chunk.lower(params, carry).compile()
        chunks, more = [], True
        while more:
            carry, more, recorded = self._compiled(params, carry)
            jax.block_until_ready(more)  # so that nothing runs on after an exception
            chunks.append(jax.device_get(recorded))
            between_chunks()
        recording = None
        if self._record:
            arrays = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
            recording = Recording(*arrays)
        return Episodes(carry.returns, carry.lengths, recording)


def _start(
    agent: Agent | MultiSeedAgent,
    env_state: EnvState,
    observations: Array,
    target_returns: Array | None,
    keys: jax.Array,
) -> _Carry:
    """Return the state before the first timestep."""
    n, dtype = observations.shape[0], observations.dtype
    return _Carry(
        timestep=jnp.zeros((), jnp.int32),
        env_state=env_state,
        last=Step(observations, jnp.zeros(n, dtype), jnp.zeros(n, bool)),
        context=agent.start(target_returns, keys),
        running=jnp.ones(n, bool),
        returns=jnp.zeros(n, dtype),
        lengths=jnp.zeros(n, jnp.int32),
    )


def _step(
    agent: Agent | MultiSeedAgent,
    env: BatchedEnv | EnvGroup,
    params: Params,
    carry: _Carry,
    record: bool,
) -> tuple[_Carry, Recording | None]:
    """Advance all episodes by one timestep; results of finished ones do not count."""
    context, actions = agent.act(
        params,
        carry.context,
        carry.last.observations,
        carry.last.rewards,
        jnp.zeros_like(carry.running),
    )
    env_state, result = env.step(carry.env_state, actions)
    recorded = None
    if record:
        recorded = Recording(carry.last.observations, actions, result.rewards)
    returns = carry.returns + result.rewards
    return _Carry(
        timestep=carry.timestep + 1,
        env_state=env_state,
        last=result,
        context=context,
        running=carry.running & ~result.done,
        returns=jnp.where(carry.running, returns, carry.returns),
        lengths=carry.lengths + carry.running.astype(carry.lengths.dtype),
    ), recorded
