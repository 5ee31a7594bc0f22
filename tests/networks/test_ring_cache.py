"""Acting with a ring against the network on whole windows, laid out as in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_agent import small_network

S, A, T, STEPS, C = 3, 2, 6, 20, 4
ENDS = {(9, 1), (10, 1), (12, 2)}  # of (step, episode): the next one starts there
CONV = {"mixer": "conv"}
RINGS = {
    "band": {"attention_band": 3},
    "band_heads": {"attention_band": 3, "num_heads": 2},
    "band_of_one_layer": {"attention_band": 6, "num_layers": 1},
    "band_of_one_timestep": {"attention_band": 1, "num_layers": 3},
    "band_no_actions": {"attention_band": 3, "action_tokens": False},
    "band_no_time": {"attention_band": 3, "timestep_embedding": False},
    "conv": CONV,
    "conv_three_layers": CONV | {"num_layers": 3},
    "conv_narrow": CONV | {"conv_width": 3},
    "conv_itself": CONV | {"conv_width": 1},
    "conv_no_actions": CONV | {"action_tokens": False},
    "conv_continuous": CONV | {"discrete": False},
}
WINDOWS = {
    "conv_five_layers": CONV | {"num_layers": 5},
    "conv_wide": CONV | {"conv_width": 12},
    "no_actions": {"action_tokens": False},
}


def some_slow(networks, *fast):
    """Return the parameters of a test, slow ones but for the named."""
    return [
        pytest.param(keys, id=name, marks=() if name in fast else pytest.mark.slow)
        for name, keys in networks.items()
    ]


def make(network):
    """Return a network whose every input matters, and its parameters in float64."""
    sizes = {"seq_len": T, "episode_len": STEPS, "num_layers": 2, "discrete": True}
    model = small_network(**sizes | network)
    zeros = np.zeros((1, T, S), np.float32)
    inputs = zeros, zeros[..., :A], zeros[..., 0], zeros[..., 0].astype(np.int32)
    params = jax.jit(model.init)(jax.random.key(0), *inputs)
    rng = np.random.default_rng(1)
    return model, jax.tree.map(
        lambda x: 8.0 * np.asarray(x, float) + 0.1 * rng.normal(size=x.shape), params
    )


def largest_difference(network):
    """Return the largest difference between acting and whole windows, and the model.

    Over steps of three episodes that restart at different times, under C returns each.
    """
    with jax.enable_x64(True):
        model, params = make(network)
        rng, n, t0 = np.random.default_rng(0), 3, np.zeros(3, int)
        states, actions = rng.normal(size=(STEPS, n, S)), rng.normal(size=(STEPS, n, A))
        returns = rng.normal(size=(STEPS, n, C))
        step = jax.jit(lambda *inputs: model.apply(params, *inputs, method="step"))
        forward = jax.jit(lambda *inputs: model.apply(params, *inputs))
        cache, worst, size = model.start(n, jnp.float64), 0.0, 0.0
        for t in range(STEPS):
            t0 = np.where([(t, i) in ENDS for i in range(n)], t, t0)
            inputs = states[t], actions[t - 1], returns[t], (t - t0).astype(np.int32)
            cache, found = step(cache, *inputs)
            windows = [[], [], [], []]
            for i in range(n):
                first = max(t0[i], t - T + 1)
                seen = slice(first, t + 1)
                padding = [(0, T - (t + 1 - first))]
                shown = np.tile(returns[seen, i, 0], (C, 1))
                shown[:, -1] = returns[t, i]
                for c in range(C):
                    parts = states[seen, i], actions[seen, i], shown[c]
                    for window, part in zip(windows, parts, strict=False):
                        rest = [(0, 0)] * (part.ndim - 1)
                        window.append(np.pad(part, padding + rest))
                    windows[3].append(np.arange(T, dtype=np.int32) + first - t0[i])
            outputs = np.asarray(forward(*map(np.stack, windows))).reshape(n, C, T, A)
            newest = np.minimum(t - t0, T - 1)
            expected = outputs[np.arange(n), :, newest]
            worst = max(worst, np.abs(found - expected).max())
            size = max(size, np.abs(expected).max())
        assert size > 0.1
        return worst, model


@pytest.mark.parametrize("network", some_slow(RINGS, "band_heads", "conv"))
def test_ring_cache_equals_whole_windows(network):
    worst, model = largest_difference(network)
    assert model.has_ring
    assert worst < 1e-12


@pytest.mark.parametrize("network", some_slow(WINDOWS, "conv_five_layers"))
def test_a_network_without_a_ring_equals_whole_windows(network):
    worst, model = largest_difference(network)
    assert not model.has_ring
    assert worst < 1e-12


@pytest.mark.parametrize(
    ("network", "seq_len"),
    [
        (CONV, 4),  # 11 tokens
        (CONV | {"action_tokens": False}, 6),
        (CONV | {"conv_width": 3, "num_layers": 3, "action_tokens": False}, 4),
        ({"attention_band": 4}, 7),
        ({"attention_band": 4, "action_tokens": False}, 7),
    ],
    ids=str,
)
def test_ring_cache_needs_a_window_of_all_that_an_action_depends_on(network, seq_len):
    model = small_network(**{"num_layers": 2} | network)
    assert model.clone(seq_len=seq_len).has_ring
    assert not model.clone(seq_len=seq_len - 1).has_ring


@pytest.mark.slow
def test_ring_cache_would_not_be_exact_beyond_the_window(monkeypatch):
    """The limit is tight: one layer or timestep more, and the two differ."""
    for at_most, beyond in (
        (CONV | {"num_layers": 3}, CONV | {"num_layers": 4}),
        ({"attention_band": 3}, {"attention_band": 4}),
    ):
        assert make(at_most)[0].has_ring
        model, _ = make(beyond)
        assert not model.has_ring
        with monkeypatch.context() as patch:
            patch.setattr(type(model), "has_ring", True)
            worst, _ = largest_difference(beyond)
        assert worst > 1e-6


@pytest.mark.parametrize("network", [CONV, {"attention_band": 3}], ids=str)
def test_ring_cache_has_the_documented_size(network):
    model, _ = make(network)
    n, layers, d = 7, model.num_layers, model.embedding_dim
    sizes = {"conv": n * layers * 5 * d, "attention": n * layers * 3 * 3 * 2 * d}
    cache = model.start(n, jnp.float32)
    assert sum(x.size for x in jax.tree.leaves(cache)) == sizes[model.mixer]


def test_a_band_hides_earlier_timesteps_in_training():
    """With one layer, exactly those: inputs W timesteps ago have no effect."""
    with jax.enable_x64(True):
        model, params = make({"attention_band": 3, "num_layers": 1})
        params = jax.tree.map(lambda x: x / 4, params)  # attention is spread out
        rng = np.random.default_rng(0)
        inputs = [
            rng.normal(size=(1, T, S)),
            rng.normal(size=(1, T, A)),
            rng.normal(size=(1, T)),
            np.arange(T, dtype=np.int32)[None],
        ]
        forward = jax.jit(lambda *inputs: model.apply(params, *inputs))
        reference = forward(*inputs)
        for i in range(3):
            changed = [x.copy() for x in inputs]
            changed[i][:, 1] += 1
            moved = np.abs(forward(*changed) - reference).max(axis=(0, 2)) > 1e-9
            first = 2 if i == 1 else 1  # an action is seen from the next state on
            assert moved.tolist() == [first <= t < 1 + 3 for t in range(T)]


def test_a_band_as_wide_as_the_window_is_full_attention():
    inputs = {
        "states": np.ones((1, T, S), np.float32),
        "actions": np.ones((1, T, A), np.float32),
        "returns_to_go": np.ones((1, T), np.float32),
        "timesteps": np.arange(T, dtype=np.int32)[None],
    }
    model, params = make({})
    params = jax.tree.map(np.float32, params)
    band = model.clone(attention_band=T)
    np.testing.assert_array_equal(
        jax.jit(band.apply)(params, **inputs), jax.jit(model.apply)(params, **inputs)
    )
