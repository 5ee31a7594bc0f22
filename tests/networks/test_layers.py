import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dt_jax.networks.layers import (
    LAYER_NORM_EPS,
    Dropout,
    gelu,
    layer_norm,
    random_bits,
    single_head_output,
    single_head_queries,
    single_head_values,
)

ROWS, COLUMNS = 400, 500


@jax.jit
def bits_of(key):
    return random_bits(key, (ROWS, COLUMNS))


@pytest.fixture(scope="module")
def bits():
    """Return numbers [16, N] and bits of 16 consecutive keys, as updates use them."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(16))
    drawn = np.stack([bits_of(key) for key in keys]).reshape(16, -1)
    return drawn, np.unpackbits(drawn.view(np.uint8), axis=-1, bitorder="little")


def deviations_from_half(share, n):
    """Return by how many standard deviations a share of n fair coins is off."""
    return np.abs(share - 0.5) * 2 * np.sqrt(n)


def test_each_bit_is_set_half_of_the_time(bits):
    drawn, unpacked = bits
    each = unpacked.reshape(16, -1, 32)
    assert deviations_from_half(each.mean(axis=1), drawn.shape[1]).max() < 5


@pytest.mark.parametrize("distance", [1, 2, COLUMNS, 4 * COLUMNS])
def test_neighbours_are_independent(bits, distance):
    """Pairs of the highest 8 bits, which decide; along rows and columns."""
    drawn, _ = bits
    high = ((drawn[:, :, None] >> np.arange(24, 32, dtype=np.uint32)) & 1).astype(bool)
    before, after = high[:, :-distance], high[:, distance:]
    for i in range(8):
        same = (before[..., i, None] == after).mean(axis=1)
        assert deviations_from_half(same, before.shape[1]).max() < 5


def test_consecutive_keys_are_independent(bits):
    drawn, _ = bits
    high = (drawn >> 31).astype(bool)
    same = np.array([(high[i] == high[j]).mean() for i in range(16) for j in range(i)])
    assert deviations_from_half(same, drawn.shape[1]).max() < 5


def test_numbers_are_uniform(bits):
    """Chi-squared over 1024 bins, with its standard deviation."""
    drawn, _ = bits
    for numbers in drawn:
        counts = np.bincount(numbers >> 22, minlength=1024)
        expected = len(numbers) / 1024
        chi = (np.square(counts - expected) / expected).sum()
        assert abs(chi - 1023) < 5 * np.sqrt(2 * 1023)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_zeroes_its_share_and_keeps_the_mean(rate):
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


def test_gradients_of_dropout_have_its_mask():
    def total(x, key):
        return Dropout(0.3).apply({}, x, False, rngs={"dropout": key}).sum()

    x, key = jnp.ones((20, 30)), jax.random.key(2)
    grads = jax.jit(jax.grad(total))(x, key)
    y = Dropout(0.3).apply({}, x, False, rngs={"dropout": key})
    np.testing.assert_allclose(grads, y, rtol=1e-6)
    assert 0 < (grads == 0).sum() < x.size


# Fast paths against their plain forms, in float64.


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("float64")
def test_single_head_attention_equals_the_plain_products():
    """Both forms of the values, with weights that do not sum to 1, as after dropout."""
    b, length, d = 3, 5, 4
    x, mask = arrays((b, length, d), (b, length, length))
    (q_kernel, k_kernel, v_kernel, out_kernel) = arrays(*[(d, d)] * 4)
    (q_bias, k_bias, v_bias) = arrays(*[(d,)] * 3)
    keep = (mask > -0.5).astype(x.dtype)

    def attend(q, k, v):
        weights = jax.nn.softmax(jnp.einsum("bre,ble->brl", q, k)) * keep
        return jnp.einsum("brl,ble->bre", weights, v), weights

    def project(kernel, bias):
        return x @ kernel + bias[None, None]

    q, k, v = map(project, (q_kernel, k_kernel, v_kernel), (q_bias, k_bias, v_bias))
    plain = attend(q, k, v)[0] @ out_kernel

    q = single_head_queries(x, q_kernel, q_bias, k_kernel)
    values = single_head_values(x, v_kernel, v_bias, out_kernel)
    np.testing.assert_allclose(attend(q, x, values)[0], plain, rtol=1e-10)

    mixed, weights = attend(q, x, x)
    total = weights.sum(axis=-1, keepdims=True)
    output = single_head_output(mixed, total, v_kernel, v_bias, out_kernel)
    np.testing.assert_allclose(output, plain, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_layer_norm_equals_automatic_differentiation():
    def plain(x, scale, bias):
        mean = x.mean(axis=-1, keepdims=True)
        variance = jnp.square(x - mean).mean(axis=-1, keepdims=True)
        normal = (x - mean) / jnp.sqrt(variance + LAYER_NORM_EPS)
        return normal * scale[None, None] + bias[None, None]

    *inputs, weights = arrays((3, 5, 8), (8,), (8,), (3, 5, 8))
    np.testing.assert_allclose(layer_norm(*inputs), plain(*inputs), rtol=1e-10)
    ours, expected = (
        jax.grad(lambda *a, f=f: (f(*a) * weights).sum(), argnums=(0, 1, 2))(*inputs)
        for f in (layer_norm, plain)
    )
    for gradient, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_gelu_equals_automatic_differentiation():
    def plain(x):
        return x * jax.scipy.stats.norm.cdf(x)

    x = jnp.linspace(-6, 6, 101)
    np.testing.assert_allclose(gelu(x), plain(x), atol=1e-12)
    ours, expected = (jax.vmap(jax.grad(f))(x) for f in (gelu, plain))
    np.testing.assert_allclose(ours, expected, atol=1e-12)
