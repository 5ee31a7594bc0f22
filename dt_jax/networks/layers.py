"""Layers with torch's initialisation, and fast equivalents of plain formulas.

Everything is computed in the parameters' precision, except normalisation and softmax,
which use float32 at least. Each fast path names the identity it rests on, and a test
compares it with the plain form.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dt_jax.types import Array

LAYER_NORM_EPS = 1e-5  # torch's; Linen's own default is 1e-6


class Linear(nn.Module):
    """A linear layer on the last axis, with minGPT's initialisation by default."""

    features: int
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.02)
    bias_init: nn.initializers.Initializer = nn.initializers.zeros

    @nn.compact
    def weights(self, inputs: int) -> tuple[Array, Array]:
        """Return the kernel [D, E] and the bias [E]."""
        shape = inputs, self.features
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, shape[1:], jnp.float32)
        return kernel, bias

    def __call__(self, x: Array) -> Array:
        """Map [..., D] to [..., E]."""
        return linear(x, *self.weights(x.shape[-1]))


class LayerNorm(nn.Module):
    """torch's LayerNorm over the last axis: its epsilon, and the two-pass variance."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [..., D] to [..., D]."""
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        return layer_norm(x, scale, bias)


class Dropout(nn.Module):
    """Zeroes each number with probability `rate`, and scales the others up.

    The random bits are a hash of each number's position and of a key from the
    "dropout" stream: the compiler fuses them where they are needed, so that no array
    of bits is drawn, stored and read again.
    """

    rate: float  # from 0 to below 1, exact to 2^-32

    @nn.compact
    def __call__(self, x: Array, deterministic: bool) -> Array:
        """Map [...] to [...]; the identity if `deterministic`."""
        if deterministic or self.rate == 0:
            return x
        bits = random_bits(self.make_rng("dropout"), x.shape)
        keep = bits >= jnp.uint32(round(self.rate * 2**32))
        scaled = at_least_float32(x) / (1 - self.rate)
        return jnp.where(keep, scaled.astype(x.dtype), 0)


def random_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return uint32 of `shape`, different ones for up to 2^32 numbers.

    PCG's hash is a fast one of those that pass the tests of Jarzynski and Olano (2020,
    https://jcgt.org/published/0009/03/02/); it is applied once per half of the key.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    position = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return _pcg(_pcg(position ^ first) + second)


def _pcg(x: jax.Array) -> jax.Array:
    """Return the output of PCG-RXS-M-XS for the state after `x`, uint32."""
    x = x * jnp.uint32(747796405) + jnp.uint32(2891336453)
    x = ((x >> ((x >> 28) + 4)) ^ x) * jnp.uint32(277803737)
    return (x >> 22) ^ x


def at_least_float32(x: Array) -> Array:
    """Widen bfloat16 and narrower types; leave the others."""
    return x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)


def linear(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Return x W + b, mapping [..., D] to [..., E].

    As one product of two matrices: XLA's CPU back end is slow in the backward pass of
    [B, L, D] @ [D, E].
    """
    y = x.reshape(-1, x.shape[-1]) @ kernel
    if bias is not None:
        y += bias[None]
    return y.reshape(*x.shape[:-1], -1)


def single_head_queries(
    x: Array, q_kernel: Array, q_bias: Array, k_kernel: Array
) -> Array:
    """Return queries [..., D] whose products with the tokens give the scores.

    (x_i W_q + b_q)·(x_j W_k + b_k) = (x_i W_q W_kᵀ + b_q W_kᵀ)·x_j + c_i, where c_i is
    the same for all keys of a query and cancels in the softmax. One product instead of
    two: the tokens themselves are the keys.
    """
    return linear(x, q_kernel @ k_kernel.T, k_kernel @ q_bias)


def single_head_values(
    x: Array, v_kernel: Array, v_bias: Array, out_kernel: Array
) -> Array:
    """Return values [..., D] that need no output projection.

    Σ_j p_j (x_j W_v + b_v) W_o = Σ_j p_j (x_j W_v W_o + b_v W_o): one product instead
    of two.
    """
    return linear(x, v_kernel @ out_kernel, v_bias @ out_kernel)


def single_head_output(
    mixed: Array, total: Array, v_kernel: Array, v_bias: Array, out_kernel: Array
) -> Array:
    """Return the attention output [B, R, D] of tokens that are mixed already.

    Σ_j p_j (x_j W_v + b_v) W_o = (Σ_j p_j x_j) W_v W_o + (Σ_j p_j) b_v W_o: the product
    is taken once per query instead of once per token. With dropout the weights p_j do
    not sum to 1, hence `total` [B, R, 1].
    """
    return (
        linear(mixed, v_kernel @ out_kernel) + total * (v_bias @ out_kernel)[None, None]
    )


@jax.custom_vjp
def layer_norm(x: Array, scale: Array, bias: Array) -> Array:
    """Return (x - mean) / sqrt(variance + eps) · scale + bias over the last axis.

    The backward pass is written out: it keeps x and two numbers per token, where
    automatic differentiation would keep several arrays of x's size.
    """
    return _layer_norm_forward(x, scale, bias)[0]


def _layer_norm_forward(x: Array, scale: Array, bias: Array) -> tuple[Array, Any]:
    wide = at_least_float32(x)
    mean = wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(wide - mean).mean(axis=-1, keepdims=True)
    rate = jax.lax.rsqrt(variance + LAYER_NORM_EPS)
    normal = ((wide - mean) * rate).astype(x.dtype)
    y = normal * _as_row(scale, x) + _as_row(bias, x)
    return y, (x, mean, rate, scale)


def _layer_norm_backward(saved: Any, grads: Array) -> tuple[Array, Array, Array]:
    x, mean, rate, scale = saved
    normal = (at_least_float32(x) - mean) * rate
    grads = at_least_float32(grads)
    through = grads * at_least_float32(_as_row(scale, x))
    leading = tuple(range(x.ndim - 1))
    dx = rate * (
        through
        - through.mean(axis=-1, keepdims=True)
        - normal * (through * normal).mean(axis=-1, keepdims=True)
    )
    return (
        dx.astype(x.dtype),
        (grads * normal).sum(axis=leading).astype(scale.dtype),
        grads.sum(axis=leading).astype(scale.dtype),
    )


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


def _as_row(x: Array, like: Array) -> Array:
    return jnp.expand_dims(x, range(like.ndim - 1))


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """Return torch's GELU, x·Φ(x).

    The backward pass computes Φ(x) again, which costs less than keeping it in memory.
    """
    return x * _normal_cdf(x)


def _gelu_backward(x: Array, grads: Array) -> tuple[Array]:
    x = jax.lax.optimization_barrier(x)  # or XLA would keep Φ(x) after all
    density = jnp.exp(-0.5 * jnp.square(x)) * (2 * np.pi) ** -0.5
    return (grads * (_normal_cdf(x) + x * density),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


def _normal_cdf(x: Array) -> Array:
    return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "relu": nn.relu,
    "gelu_new": partial(nn.gelu, approximate=True),
}
