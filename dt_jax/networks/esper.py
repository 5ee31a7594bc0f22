"""Networks of ESPER: clusters of trajectories, and what is predicted from them.

Sizes, statistics and initialisation are those of keirp/return_transforms. Inputs are
whole episodes [B, T, ...] that are aligned at their last step: padding comes first.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dt_jax.networks.critics import torch_uniform
from dt_jax.networks.layers import Linear, linear
from dt_jax.types import Array

_MOMENTUM, _EPS = 0.1, 1e-5  # torch's


class NormedLinear(nn.Module):
    """A linear layer and torch's BatchNorm, which makes a bias between them useless.

    Running variances are unbiased, those of a batch are not. The running statistics are
    in the collection "batch_stats", which training updates.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Map rows [..., D] to [..., E]; in training by the statistics of all rows."""
        shape, (*_, inputs) = (self.features,), x.shape
        uniform = torch_uniform(inputs)
        kernel = self.param("kernel", uniform, (inputs, *shape), jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        rows = x.reshape(-1, inputs) @ kernel
        if train:
            mean, var = rows.mean(axis=0), rows.var(axis=0)
            if not self.is_initializing():
                unbiased = var * (len(rows) / max(len(rows) - 1, 1))
                for running, new in (running_mean, mean), (running_var, unbiased):
                    running.value += _MOMENTUM * (new - running.value)
        else:
            mean, var = running_mean.value, running_var.value
        rate = scale * jax.lax.rsqrt(var + _EPS)
        rows = (rows - mean[None]) * rate[None] + bias[None]
        return rows.reshape(*x.shape[:-1], -1)


class NormedMLP(nn.Module):
    """Hidden layers of equal width with BatchNorm and ReLU, and a linear output."""

    outputs: int
    hidden_dim: int
    hidden_layers: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Map [..., D] to [..., E]."""
        for _ in range(self.hidden_layers):
            x = nn.relu(NormedLinear(self.hidden_dim)(x, train))
        uniform = torch_uniform(x.shape[-1])
        return Linear(self.outputs, uniform, uniform)(x)


class ReversedLSTM(nn.Module):
    """torch's LSTM, with its two biases, from the last timestep to the first."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [B, T, D] to outputs [B, T, H], each of this timestep and later ones."""

        def weight(name: str, *shape: int) -> Array:
            uniform = torch_uniform(self.features)
            return self.param(name, uniform, shape, jnp.float32)

        gates = 4 * self.features  # input, forget, cell, output
        inputs = linear(
            x,
            weight("input_kernel", x.shape[-1], gates),
            weight("input_bias", gates) + weight("recurrent_bias", gates),
        )
        kernel = weight("recurrent_kernel", self.features, gates)

        def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
            hidden, cell = carry
            i, f, g, o = jnp.split(inputs + hidden @ kernel, 4, axis=-1)
            cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
            hidden = nn.sigmoid(o) * jnp.tanh(cell)
            return (hidden, cell), hidden

        zeros = jnp.zeros((len(x), self.features), x.dtype)
        by_time = inputs.swapaxes(0, 1)
        _, outputs = jax.lax.scan(step, (zeros, zeros), by_time, reverse=True)
        return outputs.swapaxes(0, 1)


class ClusterNetwork(nn.Module):
    """The cluster of each step, from this step and the ones after it.

    Attributes:
      groups: G, of independent classes.
      classes: C, in each group.
      dim: width of all layers.
      layers: hidden ones before the LSTM.
    """

    groups: int
    classes: int
    dim: int
    layers: int

    @nn.compact
    def __call__(
        self, states: Array, actions: Array, mask: Array, train: bool
    ) -> Array:
        """Map states [B, T, S] and actions [B, T, A] to logits [B, T, G, C].

        `mask` [B, T] is 0 in the padding, whose logits are 0.
        """
        inputs = jnp.concatenate([states, actions], axis=-1)
        steps = NormedMLP(self.dim, self.dim, self.layers, name="steps")(inputs, train)
        rest = ReversedLSTM(self.dim, name="lstm")(steps)
        to_logits = NormedMLP(self.groups * self.classes, self.dim, 1, name="logits")
        logits = to_logits(rest, train) * mask[..., None]
        return logits.reshape(*mask.shape, self.groups, self.classes)


class ReturnNetwork(nn.Module):
    """The expected return-to-go of a state and an action, given a cluster."""

    dim: int
    layers: int

    @nn.compact
    def __call__(
        self, states: Array, actions: Array, clusters: Array, train: bool
    ) -> Array:
        """Map states [..., S], actions [..., A] and clusters [..., GC] to [...]."""
        inputs = jnp.concatenate([states, actions], axis=-1)
        steps = NormedMLP(self.dim, self.dim, self.layers, name="steps")(inputs, train)
        inputs = jnp.concatenate([clusters, steps], axis=-1)
        to_return = NormedMLP(1, self.dim, self.layers, name="return")
        return to_return(inputs, train)[..., 0]
