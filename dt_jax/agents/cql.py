"""Conservative Q-learning (Kumar et al., 2020, https://arxiv.org/abs/2006.04779).

Soft actor-critic with a penalty that lowers Q for sampled actions, uniform ones and the
policy's, and raises it for the data's. It is the critic of the paper of Q-learning DT
(Yamagata et al., 2023). The defaults of its own keys are that paper's; of the keys that
it shares with iql, the paper has actor_lr=1e-4, critic_layers=3 and reward_scale=1
(d3rlpy's reproductions/offline/qdt.py).
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from dt_jax.agents.base import Metrics, TrainState
from dt_jax.agents.critic import CRITIC_KEYS, Critic
from dt_jax.agents.losses import masked_mean
from dt_jax.agents.optim import initial_state
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.trajectories import Trajectories
from dt_jax.networks.critics import TanhGaussianPolicy, TwinQ, apply
from dt_jax.types import Array, Batch, Params
from dt_jax.utils.errors import UserError
from dt_jax.utils.keys import NOT_NEGATIVE, POSITIVE, Key, integer

_VALUE_SAMPLES = 10  # actions whose Q is averaged to a state's value

# fmt: off
_KEYS = (
    Key("cql_alpha", 5.0, NOT_NEGATIVE,
        "Weight of the conservative term; 0: soft actor-critic."),
    Key("cql_n_actions", 10, integer(1, 1000),
        "Actions of each kind in the conservative term: uniform, of the policy, and of "
        "the policy in the next state."),
    Key("temperature_lr", 1e-4, POSITIVE,
        "Adam's learning rate for the temperature of the policy's entropy."),
)
# fmt: on


@dataclass(frozen=True)
class ConservativeQLearning(Critic):
    """A policy, twin Q and a temperature, with one optimiser of three rates."""

    KEYS: ClassVar[tuple[Key, ...]] = (*CRITIC_KEYS, *_KEYS)

    actor: TanhGaussianPolicy
    critic: TwinQ
    normalizer: Normalizer
    optimizer: optax.GradientTransformation
    episode_len: int
    discount: float
    tau: float
    cql_alpha: float
    cql_n_actions: int

    @classmethod
    def check_data(cls, trajectories: Trajectories) -> None:
        """Raise a UserError where actions are discrete."""
        if trajectories.discrete:
            raise UserError(
                "the agent cql is for continuous actions, and those of the data are "
                "discrete: choose iql (as the critic of qdt: --config.critic=iql)"
            )

    @classmethod
    def from_config(cls, config: ConfigDict, normalizer: Normalizer) -> Self:
        """Return the agent of a configuration and a dataset's units."""
        sizes = config.critic_dim, config.critic_layers
        optimizers = {
            "actor": optax.adam(config.actor_lr),
            "critic": optax.adam(config.qf_lr),
            "log_temperature": optax.adam(config.temperature_lr),
        }
        return cls(
            actor=TanhGaussianPolicy(normalizer.action_size, config.max_action, *sizes),
            critic=TwinQ(*sizes),
            normalizer=normalizer,
            optimizer=optax.multi_transform(optimizers, {x: x for x in optimizers}),
            episode_len=config.episode_len,
            discount=config.discount,
            tau=config.tau,
            cql_alpha=config.cql_alpha,
            cql_n_actions=config.cql_n_actions,
        )

    def init(self, key: jax.Array) -> TrainState:
        """Return the state before the first update."""
        actor_key, critic_key, update_key = jax.random.split(key, 3)
        states = jnp.zeros((1, self.observation_size), jnp.float32)
        actions = jnp.zeros((1, self.action_size), jnp.float32)
        params = {
            "actor": self.actor.init(actor_key, states)["params"],
            "critic": self.critic.init(critic_key, states, actions)["params"],
            "log_temperature": jnp.zeros((), jnp.float32),
        }
        target = params["critic"]
        return initial_state(self.optimizer, params, update_key, target=target)

    def loss(
        self, params: Params, target: Params, batch: Batch, key: jax.Array
    ) -> tuple[Array, Metrics]:
        """Return the sum of the losses of policy, Q and temperature, and the metrics.

        Each loss has gradients only for its own parameters. As in `iql`, a last step
        that a time limit ended counts in none: its next state is not in the data.

        Args:
          params: of "actor" and "critic", and "log_temperature".
          target: of Q, an average of the past "critic".
          batch: [B, 1, ...].
          key: for the actions that are drawn.
        """
        fixed = jax.lax.stop_gradient(params)
        states, next_states = batch.states, batch.next_states
        mean = partial(masked_mean, valid=batch.has_next + batch.terminals)

        def q(params: Params, states: Array, actions: Array) -> Array:
            return apply(self.critic, params, states, actions)

        policy_key, next_key, conservative_key = jax.random.split(key, 3)

        # The policy maximises Q and its entropy, which the temperature holds at -A.
        actions, log_prob = self._sample(params["actor"], states, policy_key)
        temperature = jnp.exp(params["log_temperature"])
        fixed_temperature = jax.lax.stop_gradient(temperature)
        value = q(fixed["critic"], states, actions).min(axis=0)
        actor_loss = mean(fixed_temperature * log_prob - value)
        surplus = jax.lax.stop_gradient(self.action_size - log_prob)
        temperature_loss = mean(temperature * surplus)

        # Q: r + discount · min Q'(s', a'), without it after a termination.
        next_actions, _ = self._sample(fixed["actor"], next_states, next_key)
        next_q = q(target, next_states, next_actions).min(axis=0)
        y = batch.rewards + self.discount * next_q * (1 - batch.terminals)
        data_q = q(params["critic"], states, batch.actions)
        q_loss = mean(jnp.square(data_q - jax.lax.stop_gradient(y)[None]).mean(axis=0))

        # CQL(H): log Σ exp Q over actions, by importance sampling, minus the data's.
        soft_max = self._log_sum_exp(params, fixed["actor"], batch, conservative_key)
        gap = mean((soft_max - data_q).mean(axis=0))

        scale = self.normalizer.reward_scale
        metrics = {
            "train_loss": actor_loss,
            "q_loss": q_loss,
            "conservative_loss": gap,
            "q_mean": mean(data_q.mean(axis=0)) / scale,
            "temperature": temperature,
            "entropy": -mean(log_prob),
        }
        total = actor_loss + temperature_loss + q_loss + self.cql_alpha * gap
        return total, metrics

    def _log_sum_exp(
        self, params: Params, actor: Params, batch: Batch, key: jax.Array
    ) -> Array:
        """Return an estimate of log ∫ exp Q(s, a) da, up to a constant, [2, B, T].

        From uniform actions, actions of the policy, and actions that it takes in the
        next state, each weighted by its density.
        """
        n, limit = self.cql_n_actions, self.actor.max_action
        uniform_key, here_key, next_key = jax.random.split(key, 3)
        shape = n, *batch.actions.shape
        uniform = jax.random.uniform(
            uniform_key, shape, batch.actions.dtype, -limit, limit
        )
        log_density = jnp.full(
            shape[:-1], -self.action_size * jnp.log(2 * limit), uniform.dtype
        )
        parts: list[tuple[Array, Array]] = [(uniform, log_density)]
        for states, sample_key in (
            (batch.states, here_key),
            (batch.next_states, next_key),
        ):
            repeated = jnp.broadcast_to(states[None], (n, *states.shape))
            parts.append(self._sample(actor, repeated, sample_key))
        columns = zip(*parts, strict=True)
        actions, log_density = (jnp.concatenate(each) for each in columns)
        states = jnp.broadcast_to(
            batch.states[None], (len(actions), *batch.states.shape)
        )
        q = apply(self.critic, params["critic"], states, actions)
        return jax.nn.logsumexp(q - log_density[None], axis=1)

    def _sample(
        self, params: Params, states: Array, key: jax.Array
    ) -> tuple[Array, Array]:
        """Return drawn actions [..., A] and their log-densities [...]."""
        return apply(self.actor, params, states, key, method="sample")

    def values(self, params: Params, observations: Array) -> Array:
        """Return V of raw observations [N, S] in units of reward, [N].

        The mean of both Q over actions that the policy draws.
        """
        states = self.normalizer.normalize_states(observations)
        states = jnp.broadcast_to(states[None], (_VALUE_SAMPLES, *states.shape))
        actions, _ = self._sample(params["actor"], states, jax.random.key(0))
        q = apply(self.critic, params["critic"], states, actions)
        return q.mean(axis=(0, 1)) / self.normalizer.reward_scale

    def predict(self, params: Params, states: Array) -> Array:
        """Return the action of the policy's mean, [..., A]."""
        return apply(self.actor, params["actor"], states)
