"""A causal pre-LN transformer, as in minGPT, with torch's parameter initialisation.

It computes in the parameters' precision, but for normalisation and softmax, which take
float32 at least.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dt_jax.models.dropout import Dropout
from dt_jax.types import Array

# torch's; Linen's own default is 1e-6.
LAYER_NORM_EPS = 1e-5

Projections = tuple[Array, Array, Array]  # queries, keys and values, [B, L, D] each
Read = Callable[[Array], Array]  # [B, L, ...] -> [B, R, ...], some of the tokens


class Linear(nn.Module):
    """A linear layer on the last axis, with minGPT's initialisation."""

    features: int
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, x: Array, outputs: slice = slice(None)) -> Array:
        """Map [..., D] to the features, or to some of them, [..., E]."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        # One matrix, for XLA's CPU back end is slow in the backward pass of
        # [B, L, D] @ [D, E].
        flat = x.reshape(-1, x.shape[-1])
        y = flat @ kernel[:, outputs] + bias[None, outputs]
        return y.reshape(*x.shape[:-1], y.shape[-1])


class LayerNorm(nn.Module):
    """torch's LayerNorm over the last axis: its epsilon, and the two-pass variance."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [..., D] to [..., D]."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return _layer_norm(x, scale, bias)


class Attention(nn.Module):
    """Multi-head attention, its two halves apart."""

    embedding_dim: int
    num_heads: int
    dropout: float

    def setup(self) -> None:
        """Name the parameters."""
        # torch's fused in-projection is Xavier-uniform over [3D, D], which keeps its
        # bound smaller than three separate [D, D] matrices would have.
        self.in_proj = Linear(3 * self.embedding_dim, nn.initializers.xavier_uniform())
        self.out_proj = Linear(self.embedding_dim)
        self.drop = Dropout(self.dropout)

    def project(self, x: Array, read: Read) -> Projections:
        """Return the queries of what is read, [B, R, D], and all keys and values."""
        d = self.embedding_dim
        q = self.in_proj(read(x), slice(d))
        k, v = (self.in_proj(x, slice(i * d, (i + 1) * d)) for i in (1, 2))
        return q, k, v

    def __call__(
        self, projections: Projections, visible: Array, deterministic: bool
    ) -> Array:
        """Return what each query finds, [B, R, D]; `visible` is [1 or B, R, L]."""
        b, r, d = projections[0].shape
        h = self.num_heads

        def apart(x: Array) -> Array:
            """Make each head a sequence of its own, [B·H, L, D/H]."""
            return x.reshape(b, -1, h, d // h).swapaxes(1, 2).reshape(b * h, -1, d // h)

        q, k, v = map(apart, projections)
        products = _at_least_float32(jnp.einsum("bre,ble->brl", q, k))
        scores = (products * (d // h) ** -0.5).reshape(b, h, r, -1)
        scores = jnp.where(visible[:, None], scores, jnp.finfo(scores.dtype).min)
        weights = jax.nn.softmax(scores).astype(v.dtype)
        kept = self.drop(weights, deterministic).reshape(b * h, r, -1)
        mixed = jnp.einsum("brl,ble->bre", kept, v).reshape(b, h, r, -1)
        return self.out_proj(mixed.swapaxes(1, 2).reshape(b, r, d))


class Block(nn.Module):
    """Attention, then a two-layer perceptron, each added to its normalised input."""

    embedding_dim: int
    num_heads: int
    attention_dropout: float
    residual_dropout: float

    def setup(self) -> None:
        """Name the parameters."""
        d = self.embedding_dim
        self.norm1, self.norm2 = LayerNorm(), LayerNorm()
        self.attention = Attention(d, self.num_heads, self.attention_dropout)
        self.mlp_in, self.mlp_out = Linear(4 * d), Linear(d)
        # minGPT drops out after the projection, torch's attention does not by itself.
        self.drop_mixed = Dropout(self.residual_dropout)
        self.drop_out = Dropout(self.residual_dropout)

    def project(self, x: Array, read: Read) -> Projections:
        """Return the queries of what is read, [B, R, D], and all keys and values."""
        return self.attention.project(self.norm1(x), read)

    def __call__(
        self, x: Array, projections: Projections, visible: Array, deterministic: bool
    ) -> Array:
        """Map what is read of the tokens, [B, R, D]; `visible` is [1 or B, R, L]."""
        mixed = self.attention(projections, visible, deterministic)
        x = x + self.drop_mixed(mixed, deterministic)
        hidden = _gelu(self.mlp_in(self.norm2(x)))
        return x + self.drop_out(self.mlp_out(hidden), deterministic)


class Transformer(nn.Module):
    """Normalised and dropped-out embeddings, `num_layers` blocks, a final norm.

    Only what is read is computed: in the last block the other tokens have keys and
    values alone. And what depends on no other token, up to the first block's
    projections, can be kept from one call to the next.
    """

    embedding_dim: int
    num_layers: int
    num_heads: int
    attention_dropout: float
    residual_dropout: float
    embedding_dropout: float

    def setup(self) -> None:
        """Name the parameters."""
        self.emb_norm, self.out_norm = LayerNorm(), LayerNorm()
        self.drop = Dropout(self.embedding_dropout)
        self.blocks = [
            Block(
                self.embedding_dim,
                self.num_heads,
                self.attention_dropout,
                self.residual_dropout,
            )
            for _ in range(self.num_layers)
        ]

    def begin(self, x: Array, deterministic: bool) -> tuple[Array, Projections]:
        """Return what each embedded token [B, L, D] comes to by itself."""
        x = self.drop(self.emb_norm(x), deterministic)
        return x, self.blocks[0].project(x, _everything)

    def finish(
        self,
        x: Array,
        projections: Projections,
        visible: Array,
        read: Read,
        deterministic: bool,
    ) -> Array:
        """Return the features of what is read, [B, R, D].

        Args:
          x: [B, L, D], and
          projections: as `begin` returned them.
          visible: [1 or B, L, L] bool, which tokens each one may look at; itself at
            least.
          read: takes from [B, L, ...] the tokens whose features are wanted.
          deterministic: whether dropout is off.
        """
        for i, block in enumerate(self.blocks):
            take = read if i == self.num_layers - 1 else _everything
            if i == 0:
                q, k, v = projections
                projections = take(q), k, v
            else:
                projections = block.project(x, take)
            x = block(take(x), projections, take(visible), deterministic)
        return self.out_norm(x)


@jax.custom_vjp
def _layer_norm(x: Array, scale: Array, bias: Array) -> Array:
    return _layer_norm_forward(x, scale, bias)[0]


def _layer_norm_forward(x: Array, scale: Array, bias: Array) -> tuple[Array, Any]:
    wide = _at_least_float32(x)
    mean = wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(wide - mean).mean(axis=-1, keepdims=True)
    rate = jax.lax.rsqrt(variance + LAYER_NORM_EPS)
    normal = ((wide - mean) * rate).astype(x.dtype)
    y = normal * _as_row(scale, x) + _as_row(bias, x)
    return y, (x, mean, rate, scale)


def _layer_norm_backward(saved: Any, grads: Array) -> tuple[Array, Array, Array]:
    x, mean, rate, scale = saved
    normal = (_at_least_float32(x) - mean) * rate
    grads = _at_least_float32(grads)
    through = grads * _at_least_float32(_as_row(scale, x))
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


# What is kept for the backward pass is x and two numbers a token.
_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


def _as_row(x: Array, like: Array) -> Array:
    return jnp.expand_dims(x, range(like.ndim - 1))


@jax.custom_vjp
def _gelu(x: Array) -> Array:
    """Return torch's GELU, x·Φ(x)."""
    return x * _normal_cdf(x)


def _gelu_backward(x: Array, grads: Array) -> tuple[Array]:
    # Otherwise XLA would keep Φ(x), which costs more than to compute it again.
    x = jax.lax.optimization_barrier(x)
    density = jnp.exp(-0.5 * jnp.square(x)) * (2 * np.pi) ** -0.5
    return (grads * (_normal_cdf(x) + x * density),)


# What is kept for the backward pass is x alone.
_gelu.defvjp(lambda x: (_gelu(x), x), _gelu_backward)


def _normal_cdf(x: Array) -> Array:
    return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


def _everything(x: Array) -> Array:
    return x


def _at_least_float32(x: Array) -> Array:
    return x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)
