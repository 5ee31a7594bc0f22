"""Acting by one of several candidate returns, chosen by a critic.

As in QT (Hu et al., 2024, https://arxiv.org/abs/2405.17098): which return to ask for in
a state is not known, so several are tried, and the critic judges the actions to which
they lead.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from dt_jax.agents.discrete import choose
from dt_jax.agents.dt import Context, DecisionTransformerAgent
from dt_jax.networks.critics import TwinQ, apply
from dt_jax.types import Array, Params
from dt_jax.utils.keys import NOT_NEGATIVE, POSITIVE, POSITIVE_INTEGER, Key, or_none

# Levels to which normal numbers are rounded, up to 2.45 deviations; the first is 0.
_LEVELS = np.array([0, *range(-7, 0), *range(1, 8)], np.float32)
_LEVEL_WIDTH = 0.35

# fmt: off
CANDIDATE_KEYS = (
    Key("num_candidates", None, or_none(POSITIVE_INTEGER),
        "Newest returns-to-go that are tried in each step of an episode, one of them "
        "the actual one; None: 50 in qt, 1 in qcs.", resumable=True),
    Key("candidate_std", 0.1, NOT_NEGATIVE,
        "Standard deviation of the others around it, times reward_scale.",
        resumable=True),
    Key("choice_temperature", 1.0, POSITIVE,
        "Candidates are drawn by softmax of their standardised Q divided by this; "
        "towards 0: the best one.", resumable=True),
)
# fmt: on


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

    def start(
        self, target_returns: Array | None, keys: jax.Array | None = None
    ) -> Context:
        """Return the empty context of N episodes; see `Agent.start`."""
        assert keys is not None
        return super().start(target_returns)._replace(keys=keys)

    def act(
        self,
        params: Params,
        context: Context,
        observations: Array,
        rewards: Array,
        done: Array,
    ) -> tuple[Context, Array]:
        """Return the context after this timestep, and the actions; see `Agent.act`.

        Of the candidates for the newest return-to-go, the actual one and C - 1 normal
        ones around it, one is drawn by softmax of the least Q of the action to which it
        leads. Q is standardised over the candidates, so that neither its scale nor its
        offset matters. The reference's choice depends on the unit of rewards: it is
        uniform for small ones and the best for large ones.

        The normal numbers are rounded to few levels, so that many candidates are equal.
        Each level is computed once and counts as often as it was drawn.
        """
        if self.num_candidates == 1:
            return super().act(params["actor"], context, observations, rewards, done)
        context, states = self._observe(context, observations, rewards, done)
        assert context.keys is not None
        split = jax.vmap(lambda key: jax.random.split(key, 4), out_axes=1)
        keys, noise, choice, draws = split(context.keys)
        prompt = context.next_return[:, None]
        steps = self.candidate_std * _LEVEL_WIDTH * _LEVELS
        returns = prompt + steps[None].astype(prompt.dtype)
        cache, actions = self._step(params["actor"], context, states, returns)
        if self.normalizer.discrete:
            levels = jax.vmap(lambda x: jax.random.split(x, len(_LEVELS)))(draws)
            actions = jax.vmap(choose)(actions, levels if self.sample_actions else None)
        shares = jax.vmap(self.draw_candidates)(noise)
        logits = self.candidate_logits(params["critic"], states, actions, shares)
        chosen = jax.vmap(jax.random.categorical)(choice, logits)
        actions = jnp.take_along_axis(actions, chosen[:, None, None], axis=1)[:, 0]
        context = context._replace(cache=cache, actions=actions, keys=keys)
        return context, self.normalizer.to_environment(actions)

    def draw_candidates(self, key: jax.Array) -> Array:
        """Return the share of the candidates at each level, [L]."""
        noise = jax.random.normal(key, (self.num_candidates - 1,))
        noise = jnp.concatenate([jnp.zeros(1, noise.dtype), noise])
        drawn = jnp.round(noise / _LEVEL_WIDTH).clip(_LEVELS.min(), _LEVELS.max())
        return (drawn[:, None] == _LEVELS[None].astype(drawn.dtype)).mean(axis=0)

    def candidate_logits(
        self, critic: Params, states: Array, actions: Array, shares: Array
    ) -> Array:
        """Return the logits [N, L] of the choice between levels.

        Args:
          critic: parameters of the critic.
          states: [N, S], normalised.
          actions: [N, L, A], those of each level.
          shares: [N, L] of the candidates at each level.
        """
        shape = *actions.shape[:2], states.shape[-1]
        states = jnp.broadcast_to(states[:, None], shape)
        q = apply(self.critic, critic, states, actions).min(axis=0)
        share = shares.astype(q.dtype)
        centred = q - jnp.sum(share * q, axis=1, keepdims=True)
        deviation = jnp.sqrt(jnp.sum(share * centred**2, axis=1, keepdims=True))
        standard = centred / jnp.where(deviation > 0, deviation, 1)
        return standard / self.choice_temperature + jnp.log(share)
