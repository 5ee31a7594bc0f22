import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dt_jax.networks.layers import Dropout, random_bits

ROWS, COLUMNS = 400, 500


@jax.jit
def bits_of(key):
    return random_bits(key, (ROWS, COLUMNS))


@pytest.fixture(scope="module")
def bits():
    """Of 16 keys that follow each other, as steps' do: numbers [16, N] and bits."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(16))
    drawn = np.stack([bits_of(key) for key in keys]).reshape(16, -1)
    return drawn, np.unpackbits(drawn.view(np.uint8), axis=-1, bitorder="little")


def far_from_even(share, n):
    """How many standard deviations a share of n fair coins is from a half."""
    return np.abs(share - 0.5) * 2 * np.sqrt(n)


def test_each_bit_is_set_half_of_the_time(bits):
    drawn, unpacked = bits
    each = unpacked.reshape(16, -1, 32)
    assert far_from_even(each.mean(axis=1), drawn.shape[1]).max() < 5


@pytest.mark.parametrize("distance", [1, 2, COLUMNS, 4 * COLUMNS])
def test_neighbours_are_independent(bits, distance):
    """Each pair of the highest 8 bits, which decide; along rows and columns."""
    drawn, _ = bits
    high = ((drawn[:, :, None] >> np.arange(24, 32, dtype=np.uint32)) & 1).astype(bool)
    before, after = high[:, :-distance], high[:, distance:]
    for i in range(8):
        same = (before[..., i, None] == after).mean(axis=1)
        assert far_from_even(same, before.shape[1]).max() < 5


def test_keys_that_follow_each_other_are_independent(bits):
    drawn, _ = bits
    high = (drawn >> 31).astype(bool)
    same = np.array([(high[i] == high[j]).mean() for i in range(16) for j in range(i)])
    assert far_from_even(same, drawn.shape[1]).max() < 5


def test_numbers_are_spread_evenly(bits):
    """Chi-squared over 1024 bins, with its standard deviation."""
    drawn, _ = bits
    for numbers in drawn:
        counts = np.bincount(numbers >> 22, minlength=1024)
        expected = len(numbers) / 1024
        chi = (np.square(counts - expected) / expected).sum()
        assert abs(chi - 1023) < 5 * np.sqrt(2 * 1023)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_as_many_are_zeroed_as_asked_for_and_the_mean_stays(rate):
    x = np.full((ROWS, COLUMNS), 2, np.float32)
    y = np.asarray(
        jax.jit(lambda key: Dropout(rate).apply({}, x, False, rngs={"dropout": key}))(
            jax.random.key(1)
        )
    )
    np.testing.assert_allclose(y[y != 0], 2 / (1 - rate), rtol=1e-6)
    deviation = np.sqrt(rate * (1 - rate) / x.size)
    assert abs((y == 0).mean() - rate) < 5 * deviation
    assert abs((y == 0).mean(axis=0) - rate).max() < 5 * deviation * np.sqrt(COLUMNS)


def test_gradients_pass_where_numbers_do():
    def total(x, key):
        return Dropout(0.3).apply({}, x, False, rngs={"dropout": key}).sum()

    x, key = jnp.ones((20, 30)), jax.random.key(2)
    grads = jax.jit(jax.grad(total))(x, key)
    y = Dropout(0.3).apply({}, x, False, rngs={"dropout": key})
    np.testing.assert_allclose(grads, y, rtol=1e-6)
    assert 0 < (grads == 0).sum() < x.size
