"""The token mixer of the Decision ConvFormer (Kim et al., 2024, arXiv 2310.03022)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dt_jax.types import Array


class Convolution(nn.Module):
    """A depthwise causal convolution, with a kernel for each kind of token.

    y_i = Σ_w kernel[w, kind of i] · x_{i-W+1+w} + bias[kind of i], with zeros before
    the first token: kernel[W - 1] weights the token itself.

    Attributes:
      width: W, the tokens that a kernel covers.
      kinds: of tokens, in turn: return-to-go, state, action.
    """

    width: int
    kinds: int

    @nn.compact
    def weights(self, d: int) -> tuple[Array, Array]:
        """Return the kernels [W, kinds, D] and the biases [kinds, D]."""

        def init(key: jax.Array, shape: Sequence[int], dtype: jnp.dtype) -> Array:
            bound = self.width**-0.5  # torch's, for one input channel per output
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        shape = self.width, self.kinds, d
        kernel = self.param("kernel", init, shape, jnp.float32)
        bias = self.param("bias", init, shape[1:], jnp.float32)
        return kernel, bias

    def __call__(self, x: Array) -> Array:
        """Map [B, L, D], whose first token is a return-to-go."""
        length = x.shape[1]
        kernel, bias = self.weights(x.shape[-1])
        repeats = -(-length // self.kinds)
        kernel = jnp.tile(kernel, (1, repeats, 1))[:, :length]
        bias = jnp.tile(bias, (repeats, 1))[:length]
        return convolve(x, kernel) + bias[None]

    def extend(self, past: Array, x: Array) -> Array:
        """Map the tokens of a new timestep, for several returns-to-go.

        Args:
          past: [N, W - 1, D], the tokens before them, zeros before an episode's first.
          x: [N, 2C or 1 + 2C, D]: the previous action, where actions are tokens, then
            C returns-to-go and the state after each.
        """
        kernel, bias = self.weights(x.shape[-1])
        actions = self.kinds - 2  # new action tokens, 0 or 1
        c = (x.shape[1] - actions) // 2
        action, returns, states = jnp.split(x, (actions, actions + c), axis=1)

        def mix(kind: int, *tokens: Array) -> Array:
            """Weight the last W tokens of `past` and `tokens`, [N, 1 or C, D] each."""
            before = [past[:, i : i + 1] for i in range(self.width - 1)]
            window = [*before, *tokens][-self.width :]
            products = (
                x * k[None, None] for x, k in zip(window, kernel[:, kind], strict=True)
            )
            return sum(products, bias[kind][None, None])

        history = [action] if actions else []
        mixed = [mix(2, action)] if actions else []
        mixed.append(mix(0, *history, returns))
        mixed.append(mix(1, *history, returns, states))
        return jnp.concatenate(mixed, axis=1)


@jax.custom_vjp
def convolve(x: Array, kernel: Array) -> Array:
    """Return y_i = Σ_w kernel[w, i] x_{i-W+1+w}, zeros before x_0.

    The kernel's gradient is written out, see `_kernel_gradient`.

    Args:
      x: [B, L, D].
      kernel: [W, L, D], a weight for each token.
    """
    return _convolve(x, kernel)


def _convolve(x: Array, kernel: Array) -> Array:
    products = (
        x * k[None] for x, k in zip(_shifted(x, len(kernel)), kernel, strict=True)
    )
    return sum(products, jnp.zeros((), x.dtype))


def _shifted(x: Array, width: int) -> list[Array]:
    """Return x_{i-W+1+w} for each w, of x [..., L, D]."""
    length = x.shape[-2]
    padding = [(0, 0)] * (x.ndim - 2) + [(width - 1, 0), (0, 0)]
    padded = jnp.pad(x, padding)
    return [padded[..., w : w + length, :] for w in range(width)]


def _backward(saved: tuple[Array, Array], grads: Array) -> tuple[Array, Array]:
    x, kernel = saved
    width, length, _ = kernel.shape
    # Token j reaches the outputs j to j + W - 1.
    grads_after = jnp.pad(grads, ((0, 0), (0, width - 1), (0, 0)))
    kernel_after = jnp.pad(kernel, ((0, 0), (0, width - 1), (0, 0)))
    terms = (
        grads_after[:, i : i + length] * kernel_after[-1 - i, i : i + length][None]
        for i in range(width)
    )
    return sum(terms, jnp.zeros((), x.dtype)), _kernel_gradient(x, grads, width)


def _kernel_gradient(x: Array, grads: Array, width: int) -> Array:
    """Return Σ_b grads_i x_{i-W+1+w}, [W, L, D].

    On a CPU window by window: the W products of a window are read from the cache, where
    W sums over the batch would read all of it W times from memory.
    """

    def by_window(x: Array, grads: Array) -> Array:
        def add(total: list[Any], window: tuple[Any, Any]) -> tuple[list[Any], None]:
            x, grads = window
            shifted = _shifted(x, width)
            return [t + x * grads for t, x in zip(total, shifted, strict=True)], None

        zeros = [jnp.zeros(x.shape[1:], x.dtype)] * width
        return jnp.stack(jax.lax.scan(add, zeros, (x, grads))[0])

    def at_once(x: Array, grads: Array) -> Array:
        return jnp.stack([(x * grads).sum(axis=0) for x in _shifted(x, width)])

    return jax.lax.platform_dependent(x, grads, cpu=by_window, default=at_once)


convolve.defvjp(lambda x, kernel: (convolve(x, kernel), (x, kernel)), _backward)
