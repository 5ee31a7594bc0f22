"""Agents that learn returns, from which labels are made, and the simplest of them."""

from dataclasses import dataclass
from typing import ClassVar, NoReturn, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dt_jax.agents.base import Agent, Context, Metrics, TrainState
from dt_jax.agents.optim import apply_gradients, initial_state
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.sampler import Sampler
from dt_jax.data.trajectories import Trajectories
from dt_jax.networks.critics import MLP, apply
from dt_jax.types import Array, Batch, Params
from dt_jax.utils.errors import UserError
from dt_jax.utils.keys import (
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_INTEGER,
    Key,
    integer,
    or_none,
)

_BLOCK_ROWS = 1 << 16  # whose labels are computed together

# fmt: off
RETURN_KEYS = (
    Key("return_dim", 512, POSITIVE_INTEGER,
        "Width of the networks that learn the labels.", architecture=True),
    Key("return_layers", 2, integer(0, 100),
        "Hidden layers of these networks.", architecture=True),
    Key("return_lr", 1e-4, POSITIVE,
        "AdamW's learning rate for these networks, but for the dynamics."),
    Key("return_weight_decay", 0.01, NOT_NEGATIVE,
        "AdamW's weight decay for all of these networks."),
    Key("reward_scale", None, or_none(POSITIVE),
        "Factor from returns to those that are learned; None: the power of ten that "
        "brings the data's largest return to between 1 and 10.", from_data=True),
)
# fmt: on


class ReturnModel(Agent, Protocol):
    """An agent that predicts returns, from which labels are made. It does not act."""

    batch_fields: ClassVar[tuple[str, ...]] = (
        "states",
        "actions",
        "returns_to_go",
        "mask",
    )
    conditioned: ClassVar[bool] = False
    validation_metric: str = "return_mse"

    def predict(self, params: Params, batch: Batch, key: jax.Array) -> Array:
        """Return the scaled returns-to-go that are expected, [B, T].

        Args:
          params: as `acting_params` returns them.
          batch: of "states", "actions" and "mask".
          key: for what is drawn.
        """

    def validation_loss(self, params: Params, batch: Batch) -> Array:
        """Return the squared error of each return, [B, T, 1], in units of reward."""
        predicted = self.predict(params, batch, jax.random.key(0))
        errors = (predicted - batch.returns_to_go) / self.normalizer.reward_scale
        return (jnp.square(errors) * batch.mask)[..., None]

    def check_acts(self) -> NoReturn:
        """Raise a UserError: it learns labels.

        Raises:
          UserError: always.
        """
        raise UserError(
            "this run learned labels and does not act: name the run that it is a "
            "stage of"
        )

    def start(self, target_returns: Array | None, keys: jax.Array) -> Context:
        """Return an empty context; see `act`."""
        return ()

    def act(
        self,
        params: Params,
        context: Context,
        observations: Array,
        rewards: Array,
        done: Array,
    ) -> NoReturn:
        """Raise a UserError; see `check_acts`.

        Raises:
          UserError: always.
        """
        self.check_acts()

    def labels(self, params: Params, trajectories: Trajectories) -> np.ndarray:
        """Return the prediction for each row of `trajectories`, scaled, [rows]."""
        sampler = Sampler(
            trajectories,
            self.normalizer,
            batch_size=max(1, _BLOCK_ROWS // self.context_len),
            context_len=self.context_len,
            seed=0,
            fields=("states", "actions", "mask"),
        )
        starts, size = sampler.tiling(), sampler.batch_size
        labels = np.zeros(len(trajectories.observations), np.float32)
        predict = jax.jit(self.predict)
        for first in range(0, len(starts), size):
            # All batches have one shape, so that one program serves them.
            block = np.resize(starts[first : first + size], size)
            batch, key = sampler.gather(block), jax.random.key(first)
            valid = batch.mask > 0
            rows = sampler.windows(block).rows[:, None] + np.arange(self.context_len)
            labels[rows[valid]] = np.asarray(predict(params, batch, key))[valid]
        return labels


@dataclass(frozen=True)
class ExpectedReturn(ReturnModel):
    """The expected return-to-go of a state and an action, by an MLP."""

    KEYS: ClassVar[tuple[Key, ...]] = RETURN_KEYS
    context_len: ClassVar[int] = 1  # type: ignore[misc]

    network: MLP
    normalizer: Normalizer
    optimizer: optax.GradientTransformation
    episode_len: int

    @classmethod
    def from_config(cls, config: ConfigDict, normalizer: Normalizer) -> Self:
        """Return the agent of a configuration and a dataset's units."""
        return cls(
            network=MLP(1, config.return_dim, config.return_layers),
            normalizer=normalizer,
            optimizer=make_adamw(config.return_lr, config),
            episode_len=config.episode_len,
        )

    def init(self, key: jax.Array) -> TrainState:
        """Return the state before the first update."""
        sizes = self.observation_size + self.action_size
        params = self.network.init(key, jnp.zeros((1, sizes), jnp.float32))["params"]
        return initial_state(self.optimizer, params, key)

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Return the state after one more update, and its metrics."""
        loss, grads = jax.value_and_grad(self.loss)(state.params, batch)
        return apply_gradients(self.optimizer, state, grads), {"train_loss": loss}

    def loss(self, params: Params, batch: Batch) -> Array:
        """Return the mean squared error; windows of one step have no padding."""
        predicted = self.predict(params, batch)
        return jnp.mean(jnp.square(predicted - batch.returns_to_go))

    def predict(
        self, params: Params, batch: Batch, key: jax.Array | None = None
    ) -> Array:
        """Return the expected scaled returns-to-go, [B, T]."""
        inputs = jnp.concatenate([batch.states, batch.actions], axis=-1)
        return apply(self.network, params, inputs)[..., 0]


def make_adamw(
    learning_rate: float, config: ConfigDict
) -> optax.GradientTransformation:
    """Return AdamW at a constant rate, with the decay of a configuration."""
    return optax.adamw(learning_rate, weight_decay=config.return_weight_decay)
