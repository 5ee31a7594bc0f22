"""What agents with discrete actions share: their loss, and how an action is chosen."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from dt_jax.types import Array


def cross_entropy(logits: Array, actions: Array) -> Array:
    """Return -log π(a) of one-hot actions [..., N] under logits [..., N], [..., 1]."""
    return optax.softmax_cross_entropy(logits, actions)[..., None]


def choose(logits: Array, keys: jax.Array | None = None) -> Array:
    """Return one-hot actions [N, A] of the largest logits [N, A].

    Args:
      logits: of the actions' probabilities.
      keys: [N] random keys with which actions are drawn instead; None: the likeliest.
    """
    if keys is not None:
        noise = jax.vmap(lambda key, x: jax.random.gumbel(key, x.shape, x.dtype))
        logits = logits + noise(keys, logits)
    choices = jnp.argmax(logits, axis=-1)
    return jax.nn.one_hot(choices, logits.shape[-1], dtype=logits.dtype)


def expected_value(
    q: Callable[[Array, Array], Array], states: Array, logits: Array
) -> Array:
    """Return Σ_k π_k Q(s, e_k), the mean over a policy's choices.

    Args:
      q: maps states [..., S] and one-hot actions [..., N] to values [2, ...].
      states: [..., S].
      logits: [..., N], of π.
    """
    n = logits.shape[-1]
    choices = jnp.broadcast_to(jnp.eye(n, dtype=logits.dtype), (*logits.shape, n))
    values = q(jnp.repeat(states[..., None, :], n, axis=-2), choices)
    return jnp.sum(jax.nn.softmax(logits)[None] * values, axis=-1)
