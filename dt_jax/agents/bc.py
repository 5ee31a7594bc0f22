"""Behaviour cloning: an MLP predicts the recorded action from the state.

With `top_fraction` below 1 it is %BC (Chen et al., 2021, section 5.1,
https://arxiv.org/abs/2106.01345): only the trajectories of the highest returns are
imitated. It is the baseline without sequences, returns and values. The network is that
of CORL's `algorithms/offline/any_percent_bc.py`.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from dt_jax.agents.base import Metrics, TrainState
from dt_jax.agents.optim import (
    OPTIMIZER_KEYS,
    apply_gradients,
    initial_state,
    optimizer_from_config,
)
from dt_jax.agents.single_step import SingleStepAgent
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.trajectories import Trajectories
from dt_jax.networks.critics import MLP, DeterministicPolicy, apply
from dt_jax.types import Array, Batch, Params
from dt_jax.utils.keys import POSITIVE_INTEGER, Key, integer, number

# fmt: off
_KEYS = (
    Key("hidden_dim", 256, POSITIVE_INTEGER,
        "Width of the hidden layers.", architecture=True),
    Key("hidden_layers", 2, integer(0, 100),
        "Hidden layers.", architecture=True),
    Key("top_fraction", 1.0,
        number("a number above 0 and at most 1", lambda x: 0 < x <= 1),
        "Share of the trajectories that is trained on: those of the highest returns, "
        "at least one. CORL's BC-10% is 0.1."),
)
# fmt: on


@dataclass(frozen=True)
class BehaviourCloning(SingleStepAgent):
    """A policy with its optimiser."""

    KEYS: ClassVar[tuple[Key, ...]] = (*_KEYS, *OPTIMIZER_KEYS)
    batch_fields: ClassVar[tuple[str, ...]] = ("states", "actions", "mask")

    policy: MLP | DeterministicPolicy
    normalizer: Normalizer
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    episode_len: int

    @classmethod
    def from_config(cls, config: ConfigDict, normalizer: Normalizer) -> Self:
        """Return the agent of a configuration and a dataset's units."""
        sizes = config.hidden_dim, config.hidden_layers
        policy: MLP | DeterministicPolicy  # the logits of discrete actions
        if normalizer.discrete:
            policy = MLP(normalizer.action_size, *sizes)
        else:
            policy = DeterministicPolicy(
                normalizer.action_size, config.max_action, *sizes
            )
        optimizer, schedule = optimizer_from_config(config)
        return cls(policy, normalizer, optimizer, schedule, config.episode_len)

    @classmethod
    def select(cls, config: ConfigDict, trajectories: Trajectories) -> Trajectories:
        """Return the best share of the trajectories, and print its returns."""
        if config.top_fraction == 1:
            return trajectories
        best = trajectories.best(config.top_fraction)
        returns = best.episode_returns
        print(
            f"top_fraction {config.top_fraction:g}: {best.num_trajectories} of "
            f"{trajectories.num_trajectories} trajectories are trained on, with "
            f"returns from {returns.min():.3g} to {returns.max():.3g}"
        )
        return best

    def init(self, key: jax.Array) -> TrainState:
        """Return the state before the first update."""
        states = jnp.zeros((1, self.observation_size), jnp.float32)
        params = self.policy.init(key, states)["params"]
        return initial_state(self.optimizer, params, key)

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Return the state after one more update, and its metrics."""
        loss, grads = jax.value_and_grad(self.loss)(state.params, batch)
        metrics = {
            "train_loss": loss,
            "learning_rate": jnp.asarray(self.schedule(state.step), loss.dtype),
            "grad_norm": optax.tree.norm(grads),
        }
        return apply_gradients(self.optimizer, state, grads), metrics

    def loss(self, params: Params, batch: Batch) -> Array:
        """Return the mean error; windows of one step have no padding."""
        return jnp.mean(self.validation_loss(params, batch))

    def predict(self, params: Params, states: Array) -> Array:
        """Return the policy's actions or logits, [..., A]."""
        return apply(self.policy, params, states)
