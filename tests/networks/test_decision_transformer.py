import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from small_agent import small_network

S, A, T, D = 3, 2, 5, 16


def make_model(**changes):
    sizes = {"seq_len": T, "episode_len": 30, "embedding_dim": D, "num_layers": 2}
    return small_network(**sizes | {"num_heads": 2} | changes)


def make_inputs(batch=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "states": rng.standard_normal((batch, T, S), np.float32),
        "actions": rng.standard_normal((batch, T, A), np.float32),
        "returns_to_go": rng.standard_normal((batch, T), np.float32),
        "timesteps": np.tile(np.arange(T, dtype=np.int32), (batch, 1)),
    }


def init(model):
    return jax.jit(model.init)(jax.random.key(0), **make_inputs())


@pytest.fixture(scope="module")
def variables():
    return init(make_model())


@jax.jit
def apply(variables, inputs):
    return make_model().apply(variables, **inputs)


@pytest.mark.parametrize("length", [1, 3])
def test_right_padding_never_reaches_a_valid_output(variables, length):
    """Hence there is no padding mask: the padding may hold any values."""
    inputs, garbage = make_inputs(), make_inputs(seed=1)
    garbage["timesteps"] += 7
    padded = {
        name: np.concatenate([inputs[name][:, :length], garbage[name][:, length:]], 1)
        for name in inputs
    }
    np.testing.assert_array_equal(
        apply(variables, padded)[:, :length], apply(variables, inputs)[:, :length]
    )


def test_an_action_depends_only_on_earlier_tokens(variables):
    """One input is changed at one timestep: outputs change from then on."""
    inputs = make_inputs()
    reference = apply(variables, inputs)
    for name, first_reader in [("states", 2), ("returns_to_go", 2), ("actions", 3)]:
        changed = dict(inputs, **{name: inputs[name].copy()})
        changed[name][:, 2] += 1
        moved = np.abs(apply(variables, changed) - reference).max(axis=(0, 2)) > 0
        assert moved.tolist() == [t >= first_reader for t in range(T)], name


def test_outputs_stay_within_max_action(variables):
    large = jax.tree.map(lambda p: p * 100, variables)
    outputs = jax.jit(make_model(max_action=0.4).apply)(large, **make_inputs())
    assert 0.399 < np.abs(outputs).max() <= 0.4


def test_initialisation_equals_corls():
    model = make_model(embedding_dim=128, seq_len=20)
    flat = flatten_dict(init(model)["params"], sep="/")
    assert flat["timestep_emb/embedding"].shape == (30 + 20, 128)
    for path, array in flat.items():
        kind = path.rsplit("/", 1)[1]
        if "in_proj/kernel" in path:  # Xavier-uniform over the fused [D, 3D]
            bound = np.sqrt(6 / (128 + 3 * 128))
            assert 0.99 * bound < np.abs(array).max() <= bound
            assert array.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
        elif kind in ("kernel", "embedding"):
            assert array.std() == pytest.approx(0.02, rel=0.2), path
            assert abs(array.mean()) < 0.004, path
        else:
            assert (array == float(kind == "scale")).all(), path


@pytest.mark.parametrize("which", ["attention", "residual", "embedding"])
def test_each_dropout_acts_only_in_training(variables, which):
    model, inputs = make_model(**{f"{which}_dropout": 0.5}), make_inputs()

    @jax.jit
    def train(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, **inputs, deterministic=False, rngs=rngs)

    assert jnp.array_equal(train(0), train(0))
    assert not jnp.array_equal(train(0), train(1))
    np.testing.assert_array_equal(
        jax.jit(model.apply)(variables, **inputs), apply(variables, inputs)
    )


def test_without_an_embedding_of_the_timestep_only_the_order_counts():
    model = make_model(timestep_embedding=False)
    variables, inputs = init(model), make_inputs()
    assert "timestep_emb" not in variables["params"]
    expected = model.apply(variables, **inputs)
    later = inputs | {"timesteps": inputs["timesteps"] + 5}
    np.testing.assert_array_equal(model.apply(variables, **later), expected)
    # The layer norm keeps the size of a return, not only its sign.
    larger = inputs | {"returns_to_go": 2 * inputs["returns_to_go"]}
    assert np.abs(model.apply(variables, **larger) - expected).max() > 1e-3
