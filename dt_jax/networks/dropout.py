"""Dropout whose random bits cost next to nothing."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from dt_jax.networks.precision import at_least_float32
from dt_jax.types import Array


class Dropout(nn.Module):
    """Zeroes each number with probability `rate`, and scales the others up.

    Each number's bits are a hash of its place and of a key from the "dropout" stream:
    arithmetic that the compiler puts where it is needed, so that no array of bits is
    drawn, stored and read again.
    """

    rate: float  # from 0 to below 1, met to 2^-32

    @nn.compact
    def __call__(self, x: Array, deterministic: bool) -> Array:
        """Map [...] to [...]; if `deterministic`, to itself."""
        if deterministic or self.rate == 0:
            return x
        bits = random_bits(self.make_rng("dropout"), x.shape)
        keep = bits >= jnp.uint32(round(self.rate * 2**32))
        larger = at_least_float32(x) / (1 - self.rate)
        return jnp.where(keep, larger.astype(x.dtype), 0)


def random_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return uint32 of `shape`, different ones for up to 2^32 numbers.

    Of the hashes that Jarzynski and Olano compare (2020,
    https://jcgt.org/published/0009/03/02/) PCG's is a fast one that passes their tests;
    it is applied once for each half of the key.
    """
    first, second = jax.random.bits(key, (2,))
    place = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return _pcg(_pcg(place ^ first) + second)


def _pcg(x: jax.Array) -> jax.Array:
    """Return what PCG-RXS-M-XS draws from the state after `x`, uint32."""
    x = x * jnp.uint32(747796405) + jnp.uint32(2891336453)
    x = ((x >> ((x >> 28) + 4)) ^ x) * jnp.uint32(277803737)
    return (x >> 22) ^ x
