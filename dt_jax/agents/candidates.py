"""Acting by one of several candidate returns, chosen by a critic.

As in QT (Hu et al., 2024, https://arxiv.org/abs/2405.17098): which return to ask for in
a state is not known, so several are tried, and the critic judges the actions to which
they lead.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dt_jax.agents import dt
from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.networks.critics import TwinQ, apply
from dt_jax.types import Array, Params
from dt_jax.utils.keys import NOT_NEGATIVE, POSITIVE, POSITIVE_INTEGER, Key, or_none

# fmt: off
CANDIDATE_KEYS = (
    Key("num_candidates", None, or_none(POSITIVE_INTEGER),
        "Newest returns-to-go that are tried in each step of an episode, the first of "
        "them the actual one; None: 50 in qt, 1 in qcs.", resumable=True),
    Key("candidate_std", 0.1, NOT_NEGATIVE,
        "Standard deviation of the others around it, times reward_scale.",
        resumable=True),
    Key("choice_temperature", 1.0, POSITIVE,
        "Candidates are drawn by softmax of their standardised Q divided by this; "
        "towards 0: the best one.", resumable=True),
)
# fmt: on


class Context(NamedTuple):
    """What N running episodes remember."""

    inner: dt.Context
    keys: jax.Array  # [N] random keys, one per episode


@dataclass(frozen=True, kw_only=True)
class CandidateAgent(DecisionTransformerAgent):
    """A Decision Transformer that acts by one of several candidate returns.

    Its acting parameters are those of the "actor" and of the "critic".

    Attributes:
      critic: Q of states and actions in the network's units.
      others: see the keys.
    """

    critic: TwinQ
    num_candidates: int
    candidate_std: float
    choice_temperature: float

    def start(  # type: ignore[override]
        self, target_returns: Array | None, keys: jax.Array | None = None
    ) -> Context:
        """Return the empty context of N episodes; see `Agent.start`."""
        assert keys is not None
        return Context(super().start(target_returns), keys)

    def act(  # type: ignore[override]
        self,
        params: Params,
        context: Context,
        observations: Array,
        rewards: Array,
        done: Array,
    ) -> tuple[Context, Array]:
        """Return the context after this timestep, and the actions; see `Agent.act`.

        Of C candidates for the newest return-to-go, the actual one and others around
        it, one is drawn by softmax of the least Q of the actions to which they lead.
        Q is standardised over the candidates, so that neither its scale nor its offset
        matters: with (Q - mean) / deviation the choice is the same for rewards in any
        unit. The reference does not, so that its choice is uniform for small rewards
        and the best for large ones.
        """
        inner, keys = context
        arguments = inner, observations, rewards, done
        if self.num_candidates == 1:
            inner, actions = super().act(params["actor"], *arguments)
            return Context(inner, keys), actions
        inner, states = self._observe(params["actor"], *arguments)
        pairs = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
        noise = jax.vmap(
            lambda key: jax.random.normal(
                key, (self.num_candidates - 1,), inner.next_return.dtype
            )
        )(pairs[:, 1])
        candidates = self._apply(
            params["actor"],
            inner.cache,
            inner.length - 1,
            inner.next_return[:, None] + self.candidate_std * noise,
            method="predict_candidates",
        )
        logits = self.candidate_logits(params["critic"], states, candidates)
        chosen = jax.vmap(jax.random.categorical)(pairs[:, 2], logits)
        actions = jnp.take_along_axis(candidates, chosen[:, None, None], axis=1)[:, 0]
        inner = inner._replace(actions=actions)
        return Context(inner, pairs[:, 0]), self.normalizer.to_environment(actions)

    def candidate_logits(self, critic: Params, states: Array, actions: Array) -> Array:
        """Return the logits [N, C] of the actions [N, C, A] in the states [N, S]."""
        shape = *actions.shape[:2], states.shape[-1]
        states = jnp.broadcast_to(states[:, None], shape)
        q = apply(self.critic, critic, states, actions).min(axis=0)
        deviation = q.std(axis=1, keepdims=True)
        standard = (q - q.mean(axis=1, keepdims=True)) / jnp.where(
            deviation > 0, deviation, 1
        )
        return standard / self.choice_temperature
