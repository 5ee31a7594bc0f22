"""A causal pre-LN transformer, as in minGPT, with torch's parameter initialisation.

It computes in the parameters' precision, but for normalisation and softmax, which take
float32 at least.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dt_jax.networks.dropout import Dropout
from dt_jax.networks.precision import at_least_float32
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
    def weights(self, inputs: int) -> tuple[Array, Array]:
        """Return the kernel [D, E] and the bias [E]."""
        kernel = self.param("kernel", self.kernel_init, (inputs, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))

    def __call__(self, x: Array) -> Array:
        """Map [..., D] to [..., E]."""
        return _linear(x, *self.weights(x.shape[-1]))


class LayerNorm(nn.Module):
    """torch's LayerNorm over the last axis: its epsilon, and the two-pass variance."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [..., D] to [..., D]."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return _layer_norm(x, scale, bias)


class Attention(nn.Module):
    """Multi-head attention, its two halves apart: projections, and what they find.

    A single head needs fewer products: x_i·W_q·W_kᵀ·x_jᵀ takes one matrix and the
    tokens themselves for keys, and W_v·W_o is one matrix as well. (The bias of the keys
    adds the same to all scores of a query, and cancels.)

    Attributes:
      few: whether there are fewer queries than tokens. Then a single head mixes the
        tokens first, and projects what comes of it.
    """

    embedding_dim: int
    num_heads: int
    dropout: float
    few: bool

    def setup(self) -> None:
        """Name the parameters."""
        # torch's fused in-projection is Xavier-uniform over [3D, D], which keeps its
        # bound smaller than three separate [D, D] matrices would have.
        self.in_proj = Linear(3 * self.embedding_dim, nn.initializers.xavier_uniform())
        self.out_proj = Linear(self.embedding_dim)
        self.drop = Dropout(self.dropout)

    def project(self, x: Array, read: Read) -> Projections:
        """Return the queries of what is read, [B, R, D], and all keys and values."""
        (to_q, to_k, to_v), (of_q, of_k, of_v) = self._in()
        if self.num_heads > 1:
            q = _linear(read(x), to_q, of_q)
            return q, _linear(x, to_k, of_k), _linear(x, to_v, of_v)
        q = _linear(read(x), to_q @ to_k.T, to_k @ of_q)
        return q, x, x if self.few else self._out(x)

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
        products = at_least_float32(jnp.einsum("bre,ble->brl", q, k))
        scores = (products * (d // h) ** -0.5).reshape(b, h, r, -1)
        scores = jnp.where(visible[:, None], scores, jnp.finfo(scores.dtype).min)
        weights = jax.nn.softmax(scores).astype(v.dtype)
        kept = self.drop(weights, deterministic).reshape(b * h, r, -1)
        heads = jnp.einsum("brl,ble->bre", kept, v).reshape(b, h, r, -1)
        mixed: Array = heads.swapaxes(1, 2).reshape(b, r, d)
        if self.num_heads > 1:
            return self.out_proj(mixed)
        if self.few:
            mixed = self._out(mixed, kept.sum(axis=-1, keepdims=True))
        return mixed + self.out_proj.weights(d)[1][None, None]

    def _in(self) -> tuple[Sequence[Array], Sequence[Array]]:
        """Return the matrices and biases of queries, keys and values."""
        kernel, bias = self.in_proj.weights(self.embedding_dim)
        return jnp.split(kernel, 3, axis=1), jnp.split(bias, 3)

    def _out(self, x: Array, total: Array | None = None) -> Array:
        """Project tokens, or mixtures whose weights add up to `total`, in one head."""
        (_, _, to_v), (_, _, of_v) = self._in()
        out, _ = self.out_proj.weights(self.embedding_dim)
        if total is None:
            return _linear(x, to_v @ out, of_v @ out)
        return _linear(x, to_v @ out) + total * (of_v @ out)[None, None]


class Block(nn.Module):
    """Attention, then a two-layer perceptron, each added to its normalised input."""

    embedding_dim: int
    num_heads: int
    attention_dropout: float
    residual_dropout: float
    activation: str
    last: bool

    def setup(self) -> None:
        """Name the parameters."""
        d = self.embedding_dim
        self.norm1, self.norm2 = LayerNorm(), LayerNorm()
        self.attention = Attention(
            d, self.num_heads, self.attention_dropout, few=self.last
        )
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
        hidden = ACTIVATIONS[self.activation](self.mlp_in(self.norm2(x)))
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
    activation: str

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
                self.activation,
                last=i == self.num_layers - 1,
            )
            for i in range(self.num_layers)
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


def _linear(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Map [..., D] to [..., E]."""
    # One matrix, for XLA's CPU back end is slow in the backward pass of
    # [B, L, D] @ [D, E].
    y = x.reshape(-1, x.shape[-1]) @ kernel
    if bias is not None:
        y += bias[None]
    return y.reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def _layer_norm(x: Array, scale: Array, bias: Array) -> Array:
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


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": _gelu,
    "relu": nn.relu,
    "gelu_new": partial(nn.gelu, approximate=True),
}


def _everything(x: Array) -> Array:
    return x
