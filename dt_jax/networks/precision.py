"""What is not computed in a narrow type even where the network is."""

import jax.numpy as jnp

from dt_jax.types import Array


def at_least_float32(x: Array) -> Array:
    """Widen bfloat16 and the like; leave the rest as it is."""
    return x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)
