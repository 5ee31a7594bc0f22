import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_agent import large_params, normalizer, small_agent

from dt_jax.types import Batch

S, A, T, LIMIT, SCALE = 3, 2, 4, 12, 0.5
RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=S).astype(np.float32)
STD = RNG.uniform(0.5, 2, S).astype(np.float32)


UNITS = normalizer(S, A, SCALE, state_mean=MEAN, state_std=STD)


def make_agent(dropout=0.0, num_layers=2, units=UNITS, **network):
    return small_agent(
        units,
        num_layers=num_layers,
        num_heads=2,
        **network,
        attention_dropout=dropout,
        residual_dropout=dropout,
        embedding_dropout=dropout,
    )


def make_batch(size=6, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, T + 1, size)
    return Batch(
        states=rng.standard_normal((size, T, S), np.float32),
        actions=rng.uniform(-1, 1, (size, T, A)).astype(np.float32),
        returns_to_go=rng.standard_normal((size, T), np.float32),
        timesteps=np.tile(np.arange(T, dtype=np.int32), (size, 1)),
        mask=(np.arange(T) < lengths[:, None]).astype(np.float32),
    )


def test_padding_counts_in_the_mean_of_the_loss():
    agent, batch = make_agent(), make_batch()
    params = large_params(agent)
    predicted = np.asarray(jax.jit(agent.model.apply)({"params": params}, *batch[:4]))
    total = 0.0
    for b, t in zip(*np.nonzero(batch.mask), strict=True):
        total += np.square(predicted[b, t] - batch.actions[b, t]).sum()
    loss = jax.jit(agent.loss)(params, batch, jax.random.key(0))
    assert loss == pytest.approx(total / predicted.size, rel=1e-5)


@pytest.mark.slow
def test_numbers_and_types_are_the_same_under_x64():
    agent, batch, found = make_agent(dropout=0.5, num_layers=1), make_batch(), []
    ones, none = np.ones((2, S), np.float32), np.zeros(2, np.float32)
    for enabled in (False, True):
        with jax.enable_x64(enabled):
            state = jax.jit(agent.init)(jax.random.key(0))
            context = agent.start(ones[:, 0])
            acted = jax.jit(agent.act)(state.params, context, ones, none, none > 0)
            after, metrics = jax.jit(agent.update)(state, batch)
            found.append((state.params, acted, after.replace(key=0), metrics))
    types = [jax.tree.map(jnp.result_type, each) for each in found]
    assert types[0] == types[1]
    # Not the same bits: AdamW counts in JAX's widest type.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), *found)


class NaiveEpisode:
    """CORL's eval_rollout: whole histories, cut to T, without padding."""

    def __init__(self, agent, params, target):
        self.params, self.target = {"params": params}, target
        self.apply = jax.jit(agent.model.apply)
        self.restart()

    def restart(self):
        self.states, self.actions, self.returns = [], [], [self.target * SCALE]

    def act(self, observation, reward):
        if self.states:
            self.returns.append(self.returns[-1] - reward * SCALE)
        self.states.append((observation - MEAN) / STD)
        self.actions.append(np.zeros(A))  # not used
        last = slice(max(len(self.states) - T, 0), len(self.states))
        window = [
            np.asarray(x[last])[None] for x in (self.states, self.actions, self.returns)
        ]
        timesteps = np.arange(last.start, last.stop, dtype=np.int32)[None]
        out = self.apply(self.params, *window, timesteps)
        self.actions[-1] = np.asarray(out[0, -1])
        return self.actions[-1]


@pytest.mark.parametrize(
    "network",
    [{"num_layers": 1}, {"num_layers": 3}, {"timestep_embedding": False}],
    ids=str,
)
def test_act_equals_corls_unpadded_contexts(network):
    """Also where episodes end and restart at different times."""
    agent, rng = make_agent(**network), np.random.default_rng(1)
    params = large_params(agent)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda p: p.astype(np.float64), params)
        targets = np.array([3.0, -1.0, 0.5])
        naive = [NaiveEpisode(agent, params, target) for target in targets]
        act, context = jax.jit(agent.act), agent.start(targets)
        for step in range(LIMIT):
            observations = rng.standard_normal((3, S))
            rewards = rng.standard_normal(3) * (step > 0)
            done = np.array([step == 2, step in (5, 6), False])
            for i in np.flatnonzero(done):
                naive[i].restart()
            expected = [
                episode.act(*inputs)
                for episode, *inputs in zip(naive, observations, rewards, strict=True)
            ]
            context, actions = act(params, context, observations, rewards, done)
            np.testing.assert_allclose(actions, expected, atol=1e-9)
        assert act._cache_size() == 1  # compiled once


def test_actions_are_returned_in_the_environments_units():
    """The context keeps the network's; center 0 and scale 1 change no bit."""
    plain = make_agent()
    center, scale = np.array([-1, 0.25], np.float32), np.array([2, 0.5], np.float32)
    scaled = make_agent(units=replace(UNITS, action_center=center, action_scale=scale))
    unscaled = make_agent(
        units=replace(UNITS, action_center=0 * center, action_scale=scale / scale)
    )
    params = large_params(plain)
    rng = np.random.default_rng(2)
    targets = np.array([3.0, -1.0], np.float32)
    acts = [jax.jit(agent.act) for agent in (plain, scaled, unscaled)]
    contexts = [plain.start(targets)] * 3
    for step in range(3):
        inputs = (
            rng.standard_normal((2, S), np.float32),
            np.full(2, step, np.float32),
            np.zeros(2, bool),
        )
        contexts, actions = zip(
            *(
                act(params, context, *inputs)
                for act, context in zip(acts, contexts, strict=True)
            ),
            strict=True,
        )
        np.testing.assert_allclose(
            actions[1], center + scale * np.asarray(actions[0]), atol=1e-6
        )
        np.testing.assert_array_equal(actions[0], actions[2])
        np.testing.assert_allclose(contexts[1].actions, contexts[0].actions, atol=1e-6)
    assert np.abs(actions[0]).max() > 0.1


def start_training(dropout=0.1, seed=0):
    agent = make_agent(dropout, num_layers=1)  # dropout takes long to compile
    return agent, jax.jit(agent.init)(jax.random.key(seed))


def test_update_counts_steps_and_logs_the_learning_rate_it_used():
    agent, state = start_training()
    update = jax.jit(agent.update, donate_argnums=0)
    losses = []
    for step in range(4):
        before = state
        state, metrics = update(state, make_batch())
        assert state.step == step + 1
        assert metrics["learning_rate"] == agent.schedule(jnp.int32(step))
        assert metrics["grad_norm"] > 0
        losses.append(float(metrics["train_loss"]))
        assert jax.tree.leaves(before.params)[0].is_deleted()  # donated
    assert losses[-1] < losses[0]
    assert update._cache_size() == 1  # compiled once


def test_dropout_differs_between_steps():
    agent, state = start_training(dropout=0.5)
    update = jax.jit(agent.update)
    losses = {
        float(update(state.replace(step=jnp.int32(i)), make_batch())[1]["train_loss"])
        for i in range(3)
    }
    assert len(losses) == 3


@pytest.mark.slow
def test_only_products_are_computed_in_bfloat16():
    """Parameters, normalisation, softmax, loss and gradients stay in float32."""
    plain, batch = make_agent(dropout=0.1), make_batch()
    agent = replace(plain, compute_dtype="bfloat16")
    key = jax.random.key(0)
    params = jax.jit(agent.init_params)(key)
    text = str(jax.make_jaxpr(agent.loss)(params, batch, key))
    found = set(re.findall(r":(\w+)\[[^\]]*\] = (\w+)", text))
    types = {name: {t for t, n in found if n == name} for _, name in found}
    assert types["dot_general"] == {"bf16"}
    for name in ("exp", "rsqrt", "tanh", "reduce_max"):
        assert types[name] == {"f32"}, name
    loss, grads = jax.jit(jax.value_and_grad(agent.loss))(params, batch, key)
    expected, theirs = jax.jit(jax.value_and_grad(plain.loss))(params, batch, key)
    assert loss.dtype == np.float32
    assert loss == pytest.approx(float(expected), rel=0.05)
    assert loss != expected
    norm = np.sqrt(sum(np.square(g).sum() for g in jax.tree.leaves(theirs)))
    for ours, other in zip(*map(jax.tree.leaves, (grads, theirs)), strict=True):
        assert ours.dtype == np.float32
        assert np.abs(ours - other).max() < 0.1 * norm


def test_acting_ignores_bfloat16():
    plain = make_agent()
    params, targets = large_params(plain), np.ones(2, np.float32)
    inputs = np.ones((2, S), np.float32), np.zeros(2, np.float32), np.zeros(2, bool)
    actions = [
        jax.jit(agent.act)(params, agent.start(targets), *inputs)[1]
        for agent in (plain, replace(plain, compute_dtype="bfloat16"))
    ]
    np.testing.assert_array_equal(*actions)
