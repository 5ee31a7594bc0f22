"""Implicit Q-learning (Kostrikov et al., 2021, https://arxiv.org/abs/2110.06169).

A state value V learns an upper expectile of Q over the actions in the data, so that no
other action is ever evaluated; Q learns from V of the next state; and a policy imitates
the data's actions, weighted by their advantage Q - V. Losses, networks and
hyper-parameters are those of CORL's `algorithms/offline/iql.py`.
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
from dt_jax.agents.losses import action_error, masked_mean
from dt_jax.agents.optim import initial_state
from dt_jax.data.normalizer import Normalizer
from dt_jax.networks.critics import (
    MLP,
    DeterministicPolicy,
    GaussianPolicy,
    StateValue,
    TwinQ,
    apply,
    normal_log_prob,
)
from dt_jax.types import Array, Batch, Params
from dt_jax.utils.keys import (
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    Key,
    boolean,
    number,
)

_MAX_WEIGHT = 100.0  # of an action in the policy's loss

# fmt: off
_KEYS = (
    Key("iql_tau", 0.7, number("a number between 0 and 1", lambda x: 0 < x < 1),
        "Expectile of Q that V learns: 0.5 is the mean over the data's actions, "
        "towards 1 it approaches the best of them."),
    Key("beta", 3.0, NOT_NEGATIVE,
        "Inverse temperature: an action's weight in the policy's loss is "
        "exp(beta * advantage), at most 100, with the advantage in units of reward. 0: "
        "behaviour cloning."),
    Key("iql_deterministic", False, boolean(),
        "Fit the policy by squared errors instead of the likelihood of a normal "
        "distribution.", architecture=True),
    Key("vf_lr", 3e-4, POSITIVE, "Adam's learning rate for V."),
    Key("actor_dropout", 0.0, PROBABILITY,
        "Dropout after the policy's hidden layers."),
)
# fmt: on


@dataclass(frozen=True)
class ImplicitQLearning(Critic):
    """A policy, twin Q and V, with one optimiser of three learning rates."""

    KEYS: ClassVar[tuple[Key, ...]] = (*CRITIC_KEYS, *_KEYS)

    actor: MLP | DeterministicPolicy | GaussianPolicy
    critic: TwinQ
    value: StateValue
    normalizer: Normalizer
    optimizer: optax.GradientTransformation
    episode_len: int
    discount: float
    iql_tau: float
    beta: float
    tau: float

    @classmethod
    def from_config(cls, config: ConfigDict, normalizer: Normalizer) -> Self:
        """Return the agent of a configuration and a dataset's units."""
        sizes = config.critic_dim, config.critic_layers
        schedule = optax.cosine_decay_schedule(config.actor_lr, config.update_steps)
        optimizers = {
            "actor": optax.adam(schedule),
            "critic": optax.adam(config.qf_lr),
            "value": optax.adam(config.vf_lr),
        }
        return cls(
            actor=_policy(config, normalizer),
            critic=TwinQ(*sizes),
            value=StateValue(*sizes),
            normalizer=normalizer,
            optimizer=optax.multi_transform(optimizers, {x: x for x in optimizers}),
            episode_len=config.episode_len,
            discount=config.discount,
            iql_tau=config.iql_tau,
            beta=config.beta,
            tau=config.tau,
        )

    def init(self, key: jax.Array) -> TrainState:
        """Return the state before the first update."""
        actor_key, critic_key, value_key, dropout_key = jax.random.split(key, 4)
        states = jnp.zeros((1, self.observation_size), jnp.float32)
        actions = jnp.zeros((1, self.action_size), jnp.float32)
        params = {
            "actor": self.actor.init(actor_key, states)["params"],
            "critic": self.critic.init(critic_key, states, actions)["params"],
            "value": self.value.init(value_key, states)["params"],
        }
        target = params["critic"]
        return initial_state(self.optimizer, params, dropout_key, target=target)

    def loss(
        self, params: Params, target: Params, batch: Batch, dropout_key: jax.Array
    ) -> tuple[Array, Metrics]:
        """Return the sum of the losses of V, Q and the policy, and the metrics.

        Each loss has gradients only for its own network, so that the gradients of the
        sum are those of three separate updates from the same parameters. A
        trajectory's last step has no next state in the data: a termination needs none,
        and after a time limit the step counts in no loss.

        Args:
          params: of "actor", "critic" and "value".
          target: of Q, an average of the past "critic".
          batch: [B, 1, ...].
          dropout_key: for the policy.
        """
        states, actions = batch.states, batch.actions
        mean = partial(masked_mean, valid=batch.has_next + batch.terminals)

        # V: an expectile of Q over the data's actions, E |tau - 1[u < 0]| u².
        q = apply(self.critic, target, states, actions).min(axis=0)
        v = apply(self.value, params["value"], states)
        u = q - v
        v_loss = mean(jnp.where(u < 0, 1 - self.iql_tau, self.iql_tau) * jnp.square(u))

        # Q: r + discount · V(s'), without V after a termination.
        next_v = apply(self.value, params["value"], batch.next_states)
        next_v = jax.lax.stop_gradient(next_v) * (1 - batch.terminals)
        y = batch.rewards + self.discount * next_v
        both = apply(self.critic, params["critic"], states, actions)
        q_loss = mean(jnp.square(both - y[None]).mean(axis=0))

        # The policy: the data's actions, weighted by their advantage.
        advantage = jax.lax.stop_gradient(u) / self.normalizer.reward_scale
        weights = jnp.minimum(jnp.exp(self.beta * advantage), _MAX_WEIGHT)
        errors = self._imitation_error(params["actor"], states, actions, dropout_key)
        actor_loss = mean(weights * errors)

        metrics = {
            "train_loss": actor_loss,
            "q_loss": q_loss,
            "v_loss": v_loss,
            "q_mean": mean(q) / self.normalizer.reward_scale,
            "v_mean": mean(v) / self.normalizer.reward_scale,
            "advantage_mean": mean(advantage),
            "weight_mean": mean(weights),
        }
        return v_loss + q_loss + actor_loss, metrics

    def _imitation_error(
        self, params: Params, states: Array, actions: Array, dropout_key: jax.Array
    ) -> Array:
        """Return the squared error or -log π(a | s) of each action, [B, T]."""
        predicted = apply(
            self.actor,
            params,
            states,
            deterministic=False,
            rngs={"dropout": dropout_key},
        )
        if isinstance(self.actor, GaussianPolicy):
            return -normal_log_prob(actions, *predicted).sum(axis=-1)
        errors = action_error(predicted, actions, self.normalizer.discrete)
        return errors.sum(axis=-1)

    def values(self, params: Params, observations: Array) -> Array:
        """Return V of raw observations [N, S] in units of reward, [N]."""
        states = self.normalizer.normalize_states(observations)
        v = apply(self.value, params["value"], states)
        return v / self.normalizer.reward_scale

    def predict(self, params: Params, states: Array) -> Array:
        """Return the policy's action, or its mean or logits, [..., A]."""
        predicted = apply(self.actor, params["actor"], states)
        return predicted[0] if isinstance(self.actor, GaussianPolicy) else predicted


def _policy(
    config: ConfigDict, normalizer: Normalizer
) -> MLP | DeterministicPolicy | GaussianPolicy:
    """Return the network of the policy; the logits of discrete actions."""
    size, sizes = normalizer.action_size, (config.critic_dim, config.critic_layers)
    if normalizer.discrete:
        return MLP(size, *sizes, dropout=config.actor_dropout)
    policy = DeterministicPolicy(size, config.max_action, *sizes, config.actor_dropout)
    return policy if config.iql_deterministic else GaussianPolicy(policy)
