import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dt_jax.agents.optim import make_optimizer, make_schedule


def rates(kind, warmup, total, upto):
    schedule = make_schedule(kind, 0.5, warmup, total)
    return [float(schedule(jnp.int32(count))) for count in range(upto)]


def test_warmup_constant_equals_corls_schedule():
    """CORL: LambdaLR(lambda steps: min((steps + 1) / warmup_steps, 1))."""
    expected = [0.5 * min((count + 1) / 4, 1) for count in range(12)]
    np.testing.assert_allclose(rates("warmup_constant", 4, 10, 12), expected, rtol=1e-6)


def test_warmup_cosine_decays_to_a_tenth_by_update_steps():
    values = rates("warmup_cosine", 4, 20, 25)
    np.testing.assert_allclose(values[:4], [0.125, 0.25, 0.375, 0.5], rtol=1e-6)
    assert values[4] == pytest.approx(0.5)
    assert all(a > b for a, b in itertools.pairwise(values[4:21]))
    assert values[12] == pytest.approx(0.5 * 0.55)  # half way
    np.testing.assert_allclose(values[20:], 0.05, rtol=1e-6)


@pytest.mark.parametrize("warmup", [10, 25])
def test_warmup_as_long_as_the_run_has_no_decay(warmup):
    expected = [0.5 * min((count + 1) / warmup, 1) for count in range(12)]
    np.testing.assert_allclose(rates("warmup_cosine", warmup, 10, 12), expected, 1e-6)


def test_without_warmup_the_peak_comes_first():
    assert rates("warmup_constant", 0, 10, 3) == [0.5, 0.5, 0.5]
    assert rates("warmup_cosine", 0, 10, 1) == [0.5]


def numpy_adamw(params, grads, rate, betas, decay, clip):
    """Return params after one AdamW step for each of `grads`, in plain NumPy."""
    m = v = 0.0
    for t, grad in enumerate(grads, 1):
        if clip is not None:
            grad = grad * min(1, clip / np.linalg.norm(grad))
        m = betas[0] * m + (1 - betas[0]) * grad
        v = betas[1] * v + (1 - betas[1]) * grad**2
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        params = params - rate * (m_hat / (np.sqrt(v_hat) + 1e-8) + decay * params)
    return params


@pytest.mark.parametrize("clip", [None, 0.25])
def test_adamw_after_clipping_decays_every_parameter(clip):
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=6), rng.normal(size=(5, 6))
    optimizer = make_optimizer(lambda _: 0.1, (0.8, 0.9), 0.3, clip)

    def as_tree(vector):  # biases decay too, and clipping uses the global norm
        vector = jnp.asarray(vector, jnp.float32)
        return {"kernel": vector[:4].reshape(2, 2), "bias": vector[4:]}

    params = as_tree(start)
    state = optimizer.init(params)
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        for grad in grads:
            updates, state = optimizer.update(as_tree(grad), state, params)
            params = jax.tree.map(jnp.add, params, updates)
    expected = as_tree(numpy_adamw(start, grads, 0.1, (0.8, 0.9), 0.3, clip))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), params, expected)
