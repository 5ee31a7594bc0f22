"""A causal pre-LN transformer, as in minGPT, with torch's parameter initialisation.

Tokens are mixed by attention, or by the Decision ConvFormer's convolution.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dt_jax.networks.convolution import Convolution
from dt_jax.networks.layers import (
    ACTIVATIONS,
    Dropout,
    LayerNorm,
    Linear,
    at_least_float32,
    linear,
    single_head_output,
    single_head_queries,
    single_head_values,
)
from dt_jax.types import Array

Projections = tuple[Array, Array, Array]  # queries, keys and values, [B, L, D] each
Past = tuple[tuple[Array, ...], ...]  # of each block: keys and values, or inputs
Select = Callable[[Array], Array]  # [B, L, ...] -> [B, R, ...], the tokens of interest


class Block(nn.Module):
    """Pre-LN block: x + mixer(norm1(x)), then x + mlp(norm2(x))."""

    embedding_dim: int
    residual_dropout: float
    activation: str

    def setup(self) -> None:
        """Define the submodules."""
        self.norm1, self.norm2 = LayerNorm(), LayerNorm()
        self.mlp_in = Linear(4 * self.embedding_dim)
        self.mlp_out = Linear(self.embedding_dim)
        self.drop_out = Dropout(self.residual_dropout)

    def mlp(self, x: Array, deterministic: bool) -> Array:
        """Add the perceptron of the normalised tokens to them, [..., D]."""
        hidden = ACTIVATIONS[self.activation](self.mlp_in(self.norm2(x)))
        return x + self.drop_out(self.mlp_out(hidden), deterministic)


class AttentionBlock(Block):
    """A block that mixes tokens by attention.

    It comes in two calls, `project` and then the block itself, so that projections can
    be cached while acting, and so that a last block computes only the tokens that are
    read.
    """

    num_heads: int
    attention_dropout: float
    query_subset: bool

    def setup(self) -> None:
        """Define the submodules."""
        super().setup()
        self.attention = Attention(
            self.embedding_dim,
            self.num_heads,
            self.attention_dropout,
            self.query_subset,
        )
        # minGPT applies dropout after the projection, torch's attention does not.
        self.drop_mixed = Dropout(self.residual_dropout)

    def project(self, x: Array, select: Select) -> Projections:
        """Return the queries of the selected tokens, and all keys and values."""
        return self.attention.project(self.norm1(x), select)

    def __call__(
        self, x: Array, projections: Projections, visible: Array, deterministic: bool
    ) -> Array:
        """Map the selected tokens [B, R, D]; `visible` is [1 or B, R, L]."""
        mixed = self.attention(projections, visible, deterministic)
        return self.mlp(x + self.drop_mixed(mixed, deterministic), deterministic)

    def extend(
        self, x: Array, past: tuple[Array, ...], mask: Array, select: Select
    ) -> tuple[Array, tuple[Array, ...]]:
        """Return the selected ones of new tokens, and the keys and values of all.

        The arguments are those of `Transformer.extend`.
        """
        past_keys, past_values = past
        queries, keys, values = self.project(x, select)
        projections = (
            queries,
            jnp.concatenate([past_keys, keys], axis=1),
            jnp.concatenate([past_values, values], axis=1),
        )
        x = self(select(x), projections, select(mask), deterministic=True)
        return x, (keys, values)


class ConvolutionBlock(Block):
    """A block that mixes tokens by a convolution, without dropout of the mixture."""

    width: int
    kinds: int

    def setup(self) -> None:
        """Define the submodules."""
        super().setup()
        self.convolution = Convolution(self.width, self.kinds)

    def __call__(self, x: Array, select: Select, deterministic: bool) -> Array:
        """Map tokens [B, L, D] to the selected ones, [B, R, D]."""
        mixed = self.convolution(self.norm1(x))
        return self.mlp(select(x + mixed), deterministic)

    def extend(
        self, x: Array, past: tuple[Array, ...], mask: Array, select: Select
    ) -> tuple[Array, tuple[Array, ...]]:
        """Return the selected ones of new tokens, and the convolution's inputs of all.

        The arguments are those of `Transformer.extend`.
        """
        inputs = jnp.where(mask[..., None], self.norm1(x), 0)
        mixed = self.convolution.extend(past[0], inputs)
        return self.mlp(select(x + mixed), deterministic=True), (inputs,)


class Attention(nn.Module):
    """Multi-head attention as torch's, in two calls: projections, and attending.

    A single head takes fewer products, see `single_head_queries` and its neighbours.

    Attributes:
      query_subset: whether there are fewer queries than tokens. Then a single head
        mixes the tokens first and projects the mixture.
    """

    embedding_dim: int
    num_heads: int
    dropout: float
    query_subset: bool

    def setup(self) -> None:
        """Define the submodules."""
        # torch's fused in-projection is Xavier-uniform over [3D, D], a smaller bound
        # than for three separate [D, D] matrices.
        self.in_proj = Linear(3 * self.embedding_dim, nn.initializers.xavier_uniform())
        self.out_proj = Linear(self.embedding_dim)
        self.drop = Dropout(self.dropout)

    def project(self, x: Array, select: Select) -> Projections:
        """Return the queries of the selected tokens, and all keys and values."""
        (q_kernel, k_kernel, v_kernel), (q_bias, k_bias, v_bias) = self._in_weights()
        if self.num_heads > 1:
            q = linear(select(x), q_kernel, q_bias)
            return q, linear(x, k_kernel, k_bias), linear(x, v_kernel, v_bias)
        q = single_head_queries(select(x), q_kernel, q_bias, k_kernel)
        if self.query_subset:
            return q, x, x
        return q, x, single_head_values(x, v_kernel, v_bias, self._out_weights()[0])

    def __call__(
        self, projections: Projections, visible: Array, deterministic: bool
    ) -> Array:
        """Return the attention output of each query, [B, R, D].

        Args:
          projections: as `project` returns them.
          visible: [1 or B, R, L] bool, which tokens each query attends to.
          deterministic: whether dropout is off.
        """
        b, r, d = projections[0].shape
        h = self.num_heads

        def split_heads(x: Array) -> Array:
            """Make each head a sequence of its own, [B·H, L, D/H]."""
            return x.reshape(b, -1, h, d // h).swapaxes(1, 2).reshape(b * h, -1, d // h)

        q, k, v = map(split_heads, projections)
        products = at_least_float32(jnp.einsum("bre,ble->brl", q, k))
        scores = (products * (d // h) ** -0.5).reshape(b, h, r, -1)
        scores = jnp.where(visible[:, None], scores, jnp.finfo(scores.dtype).min)
        softmax = jax.nn.softmax(scores).astype(v.dtype)
        weights = self.drop(softmax, deterministic).reshape(b * h, r, -1)
        heads = jnp.einsum("brl,ble->bre", weights, v).reshape(b, h, r, -1)
        mixed: Array = heads.swapaxes(1, 2).reshape(b, r, d)
        if self.num_heads > 1:
            return self.out_proj(mixed)
        out_kernel, out_bias = self._out_weights()
        if self.query_subset:
            (_, _, v_kernel), (_, _, v_bias) = self._in_weights()
            total = weights.sum(axis=-1, keepdims=True)
            mixed = single_head_output(mixed, total, v_kernel, v_bias, out_kernel)
        return mixed + out_bias[None, None]

    def _in_weights(self) -> tuple[Sequence[Array], Sequence[Array]]:
        """Return the kernels and the biases of queries, keys and values."""
        kernel, bias = self.in_proj.weights(self.embedding_dim)
        return jnp.split(kernel, 3, axis=1), jnp.split(bias, 3)

    def _out_weights(self) -> tuple[Array, Array]:
        """Return the kernel and the bias of the output projection."""
        weights: tuple[Array, Array] = self.out_proj.weights(self.embedding_dim)
        return weights


class Transformer(nn.Module):
    """Normalised embeddings with dropout, `num_layers` blocks, a final norm.

    `embed` computes what depends on each token by itself, and can be cached while
    acting; `forward` computes the rest, only for the selected tokens.

    Attributes:
      convolution: the width and kinds of the convolution that mixes tokens; None:
        attention does.
    """

    embedding_dim: int
    num_layers: int
    num_heads: int
    attention_dropout: float
    residual_dropout: float
    embedding_dropout: float
    activation: str
    convolution: tuple[int, int] | None

    def setup(self) -> None:
        """Define the submodules."""
        self.emb_norm, self.out_norm = LayerNorm(), LayerNorm()
        self.drop = Dropout(self.embedding_dropout)
        sizes = self.embedding_dim, self.residual_dropout, self.activation

        def block(i: int) -> Any:
            if self.convolution:
                return ConvolutionBlock(*sizes, *self.convolution)
            is_last = i == self.num_layers - 1
            heads = self.num_heads, self.attention_dropout
            return AttentionBlock(*sizes, *heads, query_subset=is_last)

        self.blocks = [block(i) for i in range(self.num_layers)]

    def embed(self, x: Array, deterministic: bool) -> tuple[Array, ...]:
        """Return normalised tokens [B, L, D], and the first attention's projections."""
        x = self.drop(self.emb_norm(x), deterministic)
        if self.convolution:
            return (x,)
        return x, *self.blocks[0].project(x, _all_tokens)

    def forward(
        self,
        embedded: tuple[Array, ...],
        visible: Array | None,
        select: Select,
        deterministic: bool,
    ) -> Array:
        """Return the features of the selected tokens, [B, R, D].

        Args:
          embedded: as `embed` returns it.
          visible: [1 or B, L, L] bool, which tokens each token attends to; itself at
            least. None for a convolution.
          select: takes the tokens whose features are wanted from [B, L, ...].
          deterministic: whether dropout is off.
        """
        x, *first = embedded
        for i, block in enumerate(self.blocks):
            take = select if i == self.num_layers - 1 else _all_tokens
            if self.convolution:
                x = block(x, take, deterministic)
                continue
            assert visible is not None
            if i == 0:
                queries, keys, values = first
                projections = take(queries), keys, values
            else:
                projections = block.project(x, take)
            x = block(take(x), projections, take(visible), deterministic)
        return self.out_norm(x)

    def extend(
        self, x: Array, past: Past, mask: Array, select: Select
    ) -> tuple[Array, Past]:
        """Return the features of the selected ones of J new tokens, [N, R, D].

        Args:
          x: [N, J, D], embeddings.
          past: for each block what it keeps of the M tokens before them, [N, M, D].
          mask: [N, J, M + J] bool, which tokens each new token attends to; for a
            convolution [N, J], which new tokens exist.
          select: takes the tokens whose features are wanted from [N, J, ...].

        Returns:
          The features, and the same of the new tokens as `past`, [N, J, D].
        """
        x = self.emb_norm(x)
        new = []
        for i, (block, kept) in enumerate(zip(self.blocks, past, strict=True)):
            take = select if i == self.num_layers - 1 else _all_tokens
            x, part = block.extend(x, kept, mask, take)
            new.append(part)
        return self.out_norm(x), tuple(new)


def _all_tokens(x: Array) -> Array:
    return x
