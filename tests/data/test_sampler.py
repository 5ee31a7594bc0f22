import numpy as np
import pytest

from dt_jax.data.sampler import Sampler
from dt_jax.data.trajectories import Trajectories

BATCH, SEQ, SCALE = 64, 6, 0.001


@pytest.fixture
def store(raw):
    return Trajectories.from_raw(raw, source="x")


def make(store, **changes) -> Sampler:
    options = {
        "batch_size": BATCH,
        "seq_len": SEQ,
        "reward_scale": SCALE,
        "seed": 7,
        "state_mean": store.state_mean,
        "state_std": store.state_std,
    }
    return Sampler(store, **options | changes)


def pad(array: np.ndarray, length: int) -> np.ndarray:
    padded = np.zeros((length, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded


def naive_window(
    store, trajectory: int, start: int, seq_len: int, center=0.0, scale=1.0
):
    """Slice one trajectory, scale and pad, as CORL's __prepare_sample does."""
    first, length = store.starts[trajectory], store.lengths[trajectory]
    whole = slice(first, first + length)
    window = slice(start, start + seq_len)
    states = store.observations[whole][window]
    states = (states - store.state_mean) / store.state_std
    returns = store.returns_to_go[whole][window] * np.float32(SCALE)
    actions = (store.actions[whole][window] - center) / scale
    return (
        pad(states, seq_len),
        pad(actions, seq_len),
        pad(returns, seq_len),
        np.arange(start, start + seq_len, dtype=np.int32),
        pad(np.ones(len(states), np.float32), seq_len),
    )


@pytest.mark.parametrize("seq_len", [1, SEQ, 100])
def test_every_window_equals_the_naive_one(store, lengths, seq_len):
    sampler = make(store, seq_len=seq_len)
    batch = sampler.gather(np.arange(store.num_transitions))
    places = [(k, t) for k, length in enumerate(lengths) for t in range(length)]
    for i, (trajectory, start) in enumerate(places):
        window = naive_window(store, trajectory, start, seq_len)
        for ours, theirs in zip(batch, window, strict=True):
            np.testing.assert_array_equal(ours[i], theirs, strict=True)


def test_actions_are_in_the_networks_units_and_the_padding_stays_zero(store, lengths):
    units = np.array([-1, 0.25], np.float32), np.array([2, 0.5], np.float32)
    sampler = make(store, action_center=units[0], action_scale=units[1])
    batch = sampler.gather(store.starts)
    for i, length in enumerate(lengths):
        expected = naive_window(store, i, 0, SEQ, *units)[1]
        np.testing.assert_array_equal(batch.actions[i], expected, strict=True)
        assert not batch.actions[i, length:].any()
    assert np.abs(batch.actions - make(store).gather(store.starts).actions).max() > 0.1


def test_batch_is_the_gathered_indices(store):
    sampler = make(store)
    indices = sampler.indices(3)
    assert indices.shape == (BATCH,)
    assert indices.dtype == np.int64
    for ours, theirs in zip(sampler.batch(3), sampler.gather(indices), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_batch_depends_on_seed_and_step_alone(store):
    def batch_bytes(sampler, step):
        return b"".join(array.tobytes() for array in sampler.batch(step))

    one, other = make(store), make(store)
    for step in range(5):  # `one` has drawn these before
        one.batch(step)
    assert batch_bytes(one, 5) == batch_bytes(other, 5)
    assert batch_bytes(one, 5) != batch_bytes(one, 6)
    assert batch_bytes(one, 5) != batch_bytes(make(store, seed=8), 5)


def test_what_a_caller_does_to_a_batch_stays_in_it(store):
    sampler = make(store)
    before = [array.copy() for array in sampler.batch(0)]
    for array in sampler.batch(0):
        array.fill(3)
    for ours, theirs in zip(sampler.batch(0), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    return float(((observed - expected) ** 2 / expected).sum())


def test_trajectories_are_drawn_by_length_and_starts_uniformly(store, lengths):
    draws = 20_000
    indices = make(store, batch_size=draws).indices(0)
    trajectories = np.searchsorted(store.starts, indices, side="right") - 1
    observed = np.bincount(trajectories, minlength=len(lengths))
    expected = draws * np.array(lengths) / sum(lengths)
    assert chi_square(observed, expected) < 24  # 1 in 1000 by chance, 7 degrees
    starts = np.bincount(indices, minlength=store.num_transitions)
    uniform = np.full(store.num_transitions, draws / store.num_transitions)
    assert chi_square(starts, uniform) < 105  # 1 in 1000 by chance, 65 degrees


@pytest.mark.parametrize("part", [0, 1])
def test_windows_of_a_part_are_those_of_its_trajectories(store, part):
    of_part = store.hold_out(0.5)[part]
    sampler = make(of_part)
    assert sampler.num_transitions == of_part.lengths.sum()
    batch = sampler.gather(np.arange(sampler.num_transitions))
    whole = list(store.starts)
    places = [
        (whole.index(start), t)
        for start, length in zip(of_part.starts, of_part.lengths, strict=True)
        for t in range(length)
    ]
    for i, (trajectory, start) in enumerate(places):
        window = naive_window(store, trajectory, start, SEQ)
        for ours, theirs in zip(batch, window, strict=True):
            np.testing.assert_array_equal(ours[i], theirs, strict=True)


@pytest.mark.parametrize("seq_len", [1, 3, SEQ, 100])
def test_windows_side_by_side_show_every_transition_once(store, seq_len):
    sampler = make(store, seq_len=seq_len)
    batch = sampler.gather(sampler.tiling())
    valid = batch.mask.astype(bool)
    shown = batch.states[valid] * store.state_std + store.state_mean
    np.testing.assert_allclose(
        shown, store.observations[: store.num_transitions], rtol=1e-5
    )


def test_states_are_scaled_by_what_is_given(store):
    """After a warm start it is not the data's own mean and standard deviation."""
    mean, std = np.full(4, 2, np.float32), np.full(4, 5, np.float32)
    batch = make(store, state_mean=mean, state_std=std).gather(store.starts)
    states = (store.observations[store.starts] - mean) / std
    np.testing.assert_array_equal(batch.states[:, 0], states)
