"""How an action is chosen where there are N choices."""

import jax
import jax.numpy as jnp

from dt_jax.types import Array


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
