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
        projections = self.project(x, select)
        x = select(x) + self.attention.extend(past, projections, select(mask))
        return self.mlp(x, deterministic=True), projections[1:]


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
        q, k, v = projections
        softmax = self._softmax(self._products(q, k), visible).astype(v.dtype)
        weights = self.drop(softmax, deterministic)
        return self._output(weights, self._mix(weights, v))

    def extend(
        self, past: tuple[Array, ...], projections: Projections, visible: Array
    ) -> Array:
        """Return the output of new queries without dropout, [N, R, D].

        The tokens stay in two arrays, which costs less than to join them.

        Args:
          past: keys and values of M tokens before the new ones, [N, M, D].
          projections: of J new tokens, as `project` returns them.
          visible: [N, R, M + J] bool, which tokens each query attends to.
        """
        (past_k, past_v), (q, k, v) = past, projections
        products = self._products(q, past_k), self._products(q, k)
        weights = self._softmax(jnp.concatenate(products, axis=-1), visible)
        m = past_k.shape[1]
        mixed = self._mix(weights[..., :m], past_v) + self._mix(weights[..., m:], v)
        return self._output(weights, mixed)

    def _products(self, q: Array, k: Array) -> Array:
        """Return the products of queries [B, R, D] and keys, [B·H, R, L]."""
        products = jnp.einsum("bre,ble->brl", *map(self._split_heads, (q, k)))
        return at_least_float32(products)

    def _softmax(self, products: Array, visible: Array) -> Array:
        """Return how much each query attends to each token, [B·H, R, L]."""
        _, r, length = products.shape
        scores = products * (self.embedding_dim // self.num_heads) ** -0.5
        scores = scores.reshape(-1, self.num_heads, r, length)
        scores = jnp.where(visible[:, None], scores, jnp.finfo(scores.dtype).min)
        return jax.nn.softmax(scores).reshape(-1, r, length)

    def _mix(self, weights: Array, v: Array) -> Array:
        """Return the weighted sum of values [B, L, D], [B, R, D]."""
        b, _, d = v.shape
        h, r = self.num_heads, weights.shape[1]
        v = self._split_heads(v)
        heads = jnp.einsum("brl,ble->bre", weights, v)
        mixed: Array = heads.reshape(b, h, r, d // h).swapaxes(1, 2).reshape(b, r, d)
        return mixed

    def _split_heads(self, x: Array) -> Array:
        """Make each head a sequence of its own, [B·H, L, D/H]."""
        (b, length, d), h = x.shape, self.num_heads
        heads = x.reshape(b, length, h, d // h).swapaxes(1, 2)
        return heads.reshape(b * h, length, d // h)

    def _output(self, weights: Array, mixed: Array) -> Array:
        """Project the mixture, [B, R, D]."""
        if self.num_heads > 1:
            output: Array = self.out_proj(mixed)
            return output
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
