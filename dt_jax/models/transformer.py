"""A causal pre-LN transformer, as in minGPT, with torch's parameter initialisation."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dt_jax.types import Array

# torch's; Linen's own default is 1e-6.
LAYER_NORM_EPS = 1e-5


def dense(features: int, name: str) -> nn.Dense:
    """Return a linear layer with minGPT's initialisation."""
    return nn.Dense(features, kernel_init=nn.initializers.normal(0.02), name=name)


class LayerNorm(nn.Module):
    """torch's LayerNorm over the last axis: its epsilon, and the two-pass variance."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [..., D] to [..., D]."""
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        scale, bias = (jnp.expand_dims(p, range(x.ndim - 1)) for p in (scale, bias))
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + LAYER_NORM_EPS) * scale + bias


class CausalSelfAttention(nn.Module):
    """Multi-head attention of each token to itself and the tokens before it."""

    num_heads: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, length: int, deterministic: bool) -> Array:
        """Map the tokens [B·L, D] of sequences of `length` L to [B·L, D]."""
        d, h = x.shape[-1], self.num_heads
        # torch's fused in-projection is Xavier-uniform over [3D, D], which keeps its
        # bound smaller than three separate [D, D] matrices would have.
        in_proj = nn.Dense(
            3 * d, kernel_init=nn.initializers.xavier_uniform(), name="in_proj"
        )
        # [B·L, 3D] -> three of [B, L, H, D/H]
        qkv = in_proj(x).reshape(-1, length, 3 * h, d // h)
        q, k, v = jnp.split(qkv, 3, axis=2)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q * (d // h) ** -0.5, k)
        causal = jnp.tril(jnp.ones((length, length), bool))[None, None]  # [1, 1, L, L]
        scores = jnp.where(causal, scores, jnp.finfo(scores.dtype).min)
        weights = nn.Dropout(self.dropout)(jax.nn.softmax(scores), deterministic)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        return dense(d, "out_proj")(mixed.reshape(-1, d))


class Block(nn.Module):
    """Attention, then a two-layer perceptron, each added to its normalised input."""

    num_heads: int
    attention_dropout: float
    residual_dropout: float

    @nn.compact
    def __call__(self, x: Array, length: int, deterministic: bool) -> Array:
        """Map the tokens [B·L, D] of sequences of `length` L to [B·L, D]."""
        attention = CausalSelfAttention(
            self.num_heads, self.attention_dropout, name="attention"
        )
        mixed = attention(LayerNorm(name="norm1")(x), length, deterministic)
        # minGPT drops out after the projection, torch's attention does not by itself.
        x = x + nn.Dropout(self.residual_dropout)(mixed, deterministic)
        hidden = dense(4 * x.shape[-1], "mlp_in")(LayerNorm(name="norm2")(x))
        out = dense(x.shape[-1], "mlp_out")(jax.nn.gelu(hidden, approximate=False))
        return x + nn.Dropout(self.residual_dropout)(out, deterministic)


class Transformer(nn.Module):
    """Normalised and dropped-out embeddings, `num_layers` blocks, a final norm."""

    num_layers: int
    num_heads: int
    attention_dropout: float
    residual_dropout: float
    embedding_dropout: float

    @nn.compact
    def __call__(self, x: Array, deterministic: bool) -> Array:
        """Map embedded tokens [B, L, D] to features [B, L, D]."""
        b, length, d = x.shape
        # Batch and tokens stay one axis: XLA's CPU back end is slow in the backward
        # pass of [B, L, D] @ [D, E].
        x = LayerNorm(name="emb_norm")(x.reshape(b * length, d))
        x = nn.Dropout(self.embedding_dropout)(x, deterministic)
        for i in range(self.num_layers):
            block = Block(
                self.num_heads,
                self.attention_dropout,
                self.residual_dropout,
                name=f"blocks_{i}",
            )
            x = block(x, length, deterministic)
        return LayerNorm(name="out_norm")(x).reshape(b, length, d)
