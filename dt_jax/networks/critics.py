"""Networks that read single transitions: action values, state values and policies.

Sizes, activations and initialisation are those of CORL's `algorithms/offline/iql.py`.
Inputs may have any leading axes, such as [B] or [B, T]; S and A are the last.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dt_jax.networks.layers import Dropout, Linear
from dt_jax.types import Array, Params

_LOG_STD_MIN, _LOG_STD_MAX = -20.0, 2.0


class MLP(nn.Module):
    """Hidden layers of equal width, and a linear output.

    Attributes:
      outputs: E.
      hidden_dim: width of the hidden layers.
      hidden_layers: their number, from 0.
      activation: after each hidden layer.
      dropout: rate after each activation; it uses the "dropout" stream.
    """

    outputs: int
    hidden_dim: int
    hidden_layers: int
    activation: Callable[[Array], Array] = nn.relu
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, deterministic: bool = True) -> Array:
        """Map [..., D] to [..., E]; no dropout if `deterministic`."""
        for _ in range(self.hidden_layers):
            x = self.activation(_linear(self.hidden_dim, x.shape[-1])(x))
            x = Dropout(self.dropout)(x, deterministic)
        return _linear(self.outputs, x.shape[-1])(x)


def _linear(features: int, inputs: int) -> Linear:
    return Linear(features, torch_uniform(inputs), torch_uniform(inputs))


def torch_uniform(inputs: int) -> nn.initializers.Initializer:
    """Return torch's default initialisation of a linear layer, within ±1/√inputs."""
    bound = inputs**-0.5

    def uniform(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return uniform


class TwinQ(nn.Module):
    """Two action values Q(s, a) with parameters of their own, stacked on a first axis.

    The minimum of both counters the overestimation of either.
    """

    hidden_dim: int
    hidden_layers: int
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, states: Array, actions: Array) -> Array:
        """Map states [..., S] and actions [..., A] to values [2, ...]."""
        twin = nn.vmap(
            MLP,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            axis_size=2,
        )
        q = twin(1, self.hidden_dim, self.hidden_layers, self.activation, name="q")
        return q(jnp.concatenate([states, actions], axis=-1))[..., 0]


def mish(x: Array) -> Array:
    """Return x · tanh(log(1 + exp x)) (Misra, 2019, https://arxiv.org/abs/1908.08681)."""
    return x * jnp.tanh(jax.nn.softplus(x))


class StateValue(nn.Module):
    """The state value V(s)."""

    hidden_dim: int
    hidden_layers: int

    @nn.compact
    def __call__(self, states: Array) -> Array:
        """Map states [..., S] to values [...]."""
        mlp = MLP(1, self.hidden_dim, self.hidden_layers, name="mlp")
        return mlp(states)[..., 0]


class DeterministicPolicy(nn.Module):
    """An action within ±max_action for each state."""

    action_size: int
    max_action: float
    hidden_dim: int
    hidden_layers: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, states: Array, deterministic: bool = True) -> Array:
        """Map states [..., S] to actions [..., A]; no dropout if `deterministic`."""
        mlp = MLP(
            self.action_size,
            self.hidden_dim,
            self.hidden_layers,
            dropout=self.dropout,
            name="mlp",
        )
        return self.max_action * jnp.tanh(mlp(states, deterministic))


class GaussianPolicy(nn.Module):
    """A normal distribution of actions, whose deviations are the same in all states.

    Attributes:
      mean: the mean as a function of the state.
    """

    mean: DeterministicPolicy

    @nn.compact
    def __call__(
        self, states: Array, deterministic: bool = True
    ) -> tuple[Array, Array]:
        """Return the means [..., A] and the logarithms of the deviations [A]."""
        shape = (self.mean.action_size,)
        log_std = self.param("log_std", nn.initializers.zeros, shape, jnp.float32)
        log_std = jnp.clip(log_std, _LOG_STD_MIN, _LOG_STD_MAX)
        return self.mean(states, deterministic), log_std


class TanhGaussianPolicy(nn.Module):
    """The tanh of a normal distribution whose mean and deviation depend on the state.

    As in Haarnoja et al., 2018 (soft actor-critic), appendix C.
    """

    action_size: int
    max_action: float
    hidden_dim: int
    hidden_layers: int

    def setup(self) -> None:
        """Create the layers."""
        self.mlp = MLP(2 * self.action_size, self.hidden_dim, self.hidden_layers)

    def __call__(self, states: Array) -> Array:
        """Map states [..., S] to the actions of the means, [..., A]."""
        return self.max_action * jnp.tanh(self._normal(states)[0])

    def sample(self, states: Array, key: jax.Array) -> tuple[Array, Array]:
        """Return drawn actions [..., A] and their log-densities [...]."""
        mean, log_std = self._normal(states)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        x = mean + jnp.exp(log_std) * noise
        # log |d tanh(x)/dx| = log(1 - tanh(x)²), in a form that is exact for large |x|.
        log_slope = 2 * (math.log(2) - x - jax.nn.softplus(-2 * x))
        log_prob = normal_log_prob(x, mean, log_std) - log_slope
        log_prob = log_prob.sum(axis=-1) - self.action_size * math.log(self.max_action)
        return self.max_action * jnp.tanh(x), log_prob

    def _normal(self, states: Array) -> tuple[Array, Array]:
        mean, log_std = jnp.split(self.mlp(states), 2, axis=-1)
        return mean, jnp.clip(log_std, _LOG_STD_MIN, _LOG_STD_MAX)


def normal_log_prob(x: Array, mean: Array, log_std: Array) -> Array:
    """Return the log-density of x [..., A] under N(mean, exp(log_std)²), [..., A]."""
    log_std = jnp.broadcast_to(log_std, x.shape)
    z = (x - mean) * jnp.exp(-log_std)
    return -0.5 * jnp.square(z) - log_std - 0.5 * math.log(2 * math.pi)


def apply(network: nn.Module, params: Params, *inputs: Any, **kwargs: Any) -> Any:
    """Return what `network` computes with the collection `params` alone."""
    return network.apply({"params": params}, *inputs, **kwargs)
