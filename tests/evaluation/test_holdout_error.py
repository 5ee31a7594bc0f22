from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from small_agent import normalizer, small_agent

from dt_jax.data.labels import Labels
from dt_jax.data.sampler import Sampler
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories
from dt_jax.evaluation import evaluator
from dt_jax.evaluation.evaluator import HoldoutError

SEQ = 3


@pytest.fixture
def store():
    random, lengths = np.random.default_rng(0), [5, 1, 7, 3]
    rows = sum(lengths)
    timeouts = np.zeros(rows, bool)
    timeouts[np.cumsum(lengths) - 1] = True
    raw = RawData(
        observations=random.normal(3, 2, (rows, 4)).astype(np.float32),
        actions=random.uniform(-1, 1, (rows, 2)).astype(np.float32),
        rewards=random.normal(size=rows).astype(np.float32),
        terminals=np.zeros(rows, bool),
        timeouts=timeouts,
    )
    return Trajectories.from_raw(raw, source="x")


def units(store):
    return normalizer(
        4, 2, 0.001, state_mean=store.state_mean, state_std=store.state_std
    )


@pytest.fixture
def agent(store):
    return small_agent(units(store), seq_len=SEQ, episode_len=9)


def sampler(store, batch_size, normalizer=None, labels=None):
    return Sampler(
        store,
        normalizer or units(store),
        batch_size=batch_size,
        context_len=SEQ,
        seed=0,
        fields=("states", "actions", "returns_to_go", "timesteps", "mask"),
        labels=labels,
    )


def test_holdout_error_equals_a_naive_loop(agent, store):
    params = agent.init_params(jax.random.key(0))
    apply = jax.jit(partial(agent.model.apply, deterministic=True))

    def padded(rows):
        short = SEQ - len(rows)
        return np.pad(rows, [(0, short)] + [(0, 0)] * (rows.ndim - 1))[None]

    errors = []
    for start, length in zip(store.starts, store.lengths, strict=True):
        for first in range(0, length, SEQ):
            rows = slice(start + first, start + min(first + SEQ, length))
            states = (store.observations[rows] - store.state_mean) / store.state_std
            actions = store.actions[rows]
            predicted = apply(
                {"params": params},
                padded(states),
                padded(actions),
                padded(store.returns_to_go[rows] * np.float32(0.001)),
                np.arange(first, first + SEQ, dtype=np.int32)[None],
            )
            errors += list(np.square(predicted[0, : len(actions)] - actions))
    assert len(errors) == store.num_transitions
    for batch_size in (4, 64):  # several batches, or one
        measured, relative = HoldoutError(agent, [sampler(store, batch_size)])(params)
        assert measured == pytest.approx(np.mean(errors), rel=1e-5)
        expected = np.mean(errors, axis=0) / store.actions.var(axis=0)
        np.testing.assert_allclose(relative, expected, rtol=1e-5)


def test_relative_errors_are_of_each_seed_and_of_numbers_that_vary(store):
    """In whatever units the actions are."""
    actions = store.actions * np.float32([200, 1]) + np.float32([300, 0])
    actions[:, 1] = 0.1
    moved = replace(store, actions=actions)
    center, scale = np.float32([300, 0.1]), np.float32([200, 1])
    changes = {"action_center": center, "action_scale": scale}
    new_units = replace(units(store), **changes)
    agent = small_agent(new_units, seq_len=SEQ, episode_len=9)
    windows = sampler(moved, 4, new_units)
    params = [agent.init_params(jax.random.key(seed)) for seed in (0, 1)]
    both = jax.tree.map(lambda *x: np.stack(x), *params)
    found = HoldoutError(agent, [windows], num_seeds=2)
    errors, relative = found(both)
    assert (errors.shape, relative.shape) == ((2,), (2, 1))
    assert found.varying.tolist() == [0]
    for i in range(2):
        one, alone = HoldoutError(agent, [windows])(params[i])
        np.testing.assert_allclose(errors[i], one, rtol=1e-5)
        np.testing.assert_allclose(relative[i], alone, rtol=1e-5)
    # Always the mean would have an error of 1.
    zero = jax.tree.map(np.zeros_like, params[0])
    mean = actions[:, 0].mean()
    centred = replace(new_units, action_center=np.float32([mean, 0.1]))
    agent = small_agent(centred, seq_len=SEQ, episode_len=9)
    _, relative = HoldoutError(agent, [sampler(moved, 4, centred)])(zero)
    np.testing.assert_allclose(relative, [1], rtol=1e-4)


def test_each_seed_may_have_labels_of_its_own(agent, store):
    values = store.returns_to_go * np.float32([[1], [1000]])
    windows = [sampler(store, 4, labels=Labels(each)) for each in values]
    params = [agent.init_params(jax.random.key(seed)) for seed in (0, 1)]
    both = jax.tree.map(lambda *x: np.stack(x), *params)
    errors, relative = HoldoutError(agent, windows, num_seeds=2)(both)
    for i in range(2):
        one, alone = HoldoutError(agent, windows[i : i + 1])(params[i])
        np.testing.assert_allclose(errors[i], one, rtol=1e-5)
        np.testing.assert_allclose(relative[i], alone, rtol=1e-5)
    other, _ = HoldoutError(agent, windows[:1])(params[1])
    assert errors[1] != pytest.approx(other, rel=1e-4)


def test_of_many_windows_some_are_taken_at_equal_distances(agent, store, monkeypatch):
    monkeypatch.setattr(evaluator, "_MAX_WINDOWS", 3)
    windows = sampler(store, 4)
    error = HoldoutError(agent, [windows])
    np.testing.assert_array_equal(error._starts, windows.tiling()[[0, 3, 6]])
