import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dt_jax.networks.convolution import Convolution, _convolve, convolve

B, D = 3, 4


@pytest.mark.parametrize("width", [1, 3, 6])
@pytest.mark.parametrize(("kinds", "length"), [(3, 8), (3, 2), (2, 7)])
def test_the_convolution_equals_its_formula(width, kinds, length):
    convolution = Convolution(width, kinds)
    x = np.random.default_rng(0).normal(size=(B, length, D)).astype(np.float32)
    variables = convolution.init(jax.random.key(0), x)
    kernel, bias = (np.asarray(variables["params"][x]) for x in ("kernel", "bias"))
    expected = np.zeros_like(x)
    for i in range(length):
        for w in range(width):
            earlier = i - width + 1 + w
            if earlier >= 0:
                expected[:, i] += kernel[w, i % kinds] * x[:, earlier]
        expected[:, i] += bias[i % kinds]
    found = jax.jit(convolution.apply)(variables, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_weights_start_uniform_as_torchs():
    x = jnp.zeros((1, 9, 500))
    params = Convolution(6, 3).init(jax.random.key(0), x)["params"]
    for array in params.values():
        assert 0.99 * 6**-0.5 < np.abs(array).max() <= 6**-0.5
        assert array.std() == pytest.approx((6 * 3) ** -0.5, rel=0.05)


@pytest.mark.parametrize("width", [1, 3, 6])
def test_gradients_equal_automatic_differentiation(width):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernel = rng.normal(size=(2, B, 5, D)), rng.normal(size=(2, width, 5, D))
        grads = rng.normal(size=x.shape)

        def pull(function, x, kernel, grads):
            return jax.vjp(function, x, kernel)[1](grads)

        for i in range(2):
            inputs = x[i], kernel[i], grads[i]
            ours = jax.jit(pull, static_argnums=0)(convolve, *inputs)
            plain = jax.jit(pull, static_argnums=0)(_convolve, *inputs)
            for found, expected in zip(ours, plain, strict=True):
                np.testing.assert_allclose(found, expected, atol=1e-12)
        # Of several seeds at once.
        of_seeds = jax.vmap(lambda *inputs: pull(convolve, *inputs))
        for found, expected in zip(
            jax.jit(of_seeds)(x, kernel, grads), ours, strict=True
        ):
            np.testing.assert_allclose(found[1], expected, atol=1e-12)
