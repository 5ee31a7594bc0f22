"""The errors of actions, continuous or discrete, and their means over valid steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from dt_jax.types import Array


def masked_mean(x: Array, valid: Array) -> Array:
    """Return the mean of x [B, T] where `valid` [B, T] is 1; 0 where it never is."""
    return jnp.sum(valid * x) / jnp.maximum(jnp.sum(valid), 1)


def action_error(predicted: Array, actions: Array, discrete: bool) -> Array:
    """Return squared errors [..., A], or -log π(a) of one-hot actions, [..., 1].

    Args:
      predicted: [..., A], actions or the logits of choices.
      actions: [..., A], the recorded ones.
      discrete: whether they are choices.
    """
    if discrete:
        return optax.softmax_cross_entropy(predicted, actions)[..., None]
    return jnp.square(predicted - actions)


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
