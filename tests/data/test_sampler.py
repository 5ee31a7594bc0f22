"""Windows of trajectories, compared with a loop that slices them one by one."""

import numpy as np
import pytest

from dt_jax.data.labels import Labels
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.sampler import Sampler
from dt_jax.data.trajectories import Trajectories
from dt_jax.types import Batch

B, T, SCALE = 64, 6, 0.001
FIELDS = Batch._fields


@pytest.fixture
def trajectories(raw):
    return Trajectories.from_raw(raw, source="x")


@pytest.fixture
def normalizer(trajectories):
    """Return units other than the data's own, as after a warm start."""
    return Normalizer(
        trajectories.state_mean + 2,
        trajectories.state_std * 5,
        action_center=np.array([-1, 0.25], np.float32),
        action_scale=np.array([2, 0.5], np.float32),
        reward_scale=SCALE,
    )


def make_sampler(trajectories, normalizer, **changes) -> Sampler:
    options = {"batch_size": B, "context_len": T, "seed": 7, "fields": FIELDS}
    return Sampler(trajectories, normalizer, **options | changes)


def pad(array: np.ndarray, length: int) -> np.ndarray:
    padded = np.zeros((length, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded


def naive_window(trajectories, units, k: int, start: int, context_len: int) -> Batch:
    """Slice trajectory k, scale and pad, as CORL's __prepare_sample does."""
    first, length = trajectories.starts[k], trajectories.lengths[k]
    whole = slice(first, first + length)
    window = slice(start, start + context_len)
    states = trajectories.observations[whole] - units.state_mean
    states = states / units.state_std
    actions = trajectories.actions[whole] - units.action_center
    actions = actions / units.action_scale
    terminals = np.zeros(length, np.float32)
    terminals[-1] = trajectories.terminated[k]
    scale = np.float32(units.reward_scale)
    padded = {
        "states": states[window],
        "actions": actions[window],
        "returns_to_go": trajectories.returns_to_go[whole][window] * scale,
        "mask": np.ones(length, np.float32)[window],
        "rewards": trajectories.rewards[whole][window] * scale,
        "terminals": terminals[window],
        "next_states": states[start + 1 : start + 1 + context_len],
        "has_next": np.ones(length - 1, np.float32)[window],
        "episode_returns": np.full(
            length, trajectories.returns_to_go[whole][0] * scale
        )[window],
    }
    return Batch(
        timesteps=np.arange(start, start + context_len, dtype=np.int32),
        **{name: pad(array, context_len) for name, array in padded.items()},
    )


def assert_equal(ours, theirs):
    for name in FIELDS:
        np.testing.assert_array_equal(
            getattr(ours, name), getattr(theirs, name), err_msg=name, strict=True
        )


@pytest.mark.parametrize("part", ["whole", "kept", "held out"])
@pytest.mark.parametrize("context_len", [1, T, 100])
def test_every_window_equals_the_naive_one(trajectories, normalizer, context_len, part):
    if part != "whole":
        trajectories = trajectories.hold_out(0.5)[part == "held out"]
    sampler = make_sampler(trajectories, normalizer, context_len=context_len)
    assert sampler.num_transitions == trajectories.lengths.sum()
    batch = sampler.gather(np.arange(sampler.num_transitions))
    lengths = trajectories.lengths
    places = [(k, t) for k, length in enumerate(lengths) for t in range(length)]
    for i, place in enumerate(places):
        window = naive_window(trajectories, normalizer, *place, context_len)
        assert_equal(Batch(*(array[i] for array in batch)), window)
    assert 0 < trajectories.terminated.sum() < len(lengths)


@pytest.mark.parametrize(
    "fields", [("mask",), ("states", "next_states"), ("timesteps", "rewards")]
)
def test_only_the_requested_fields_are_filled(trajectories, normalizer, fields):
    batch = make_sampler(trajectories, normalizer, fields=fields).batch(0)
    whole = make_sampler(trajectories, normalizer).batch(0)
    for name in FIELDS:
        if name in fields:
            np.testing.assert_array_equal(getattr(batch, name), getattr(whole, name))
        else:
            assert getattr(batch, name) is None


def test_a_batch_depends_only_on_seed_and_step(trajectories, normalizer):
    def batch_bytes(sampler, step):
        return b"".join(array.tobytes() for array in sampler.batch(step))

    used, fresh, other = (
        make_sampler(trajectories, normalizer, seed=seed) for seed in (7, 7, 8)
    )
    for step in range(5):
        used.batch(step)
    assert batch_bytes(used, 5) == batch_bytes(fresh, 5)
    assert batch_bytes(used, 5) != batch_bytes(used, 6)
    assert batch_bytes(used, 5) != batch_bytes(other, 5)
    assert_equal(used.batch(5), used.gather(used.indices(5)))


def test_changing_a_batch_does_not_change_the_data(trajectories, normalizer):
    sampler = make_sampler(trajectories, normalizer)
    before = Batch(*(array.copy() for array in sampler.batch(0)))
    for array in sampler.batch(0):
        array.fill(3)
    assert_equal(sampler.batch(0), before)


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    return float(((observed - expected) ** 2 / expected).sum())


def test_trajectories_are_drawn_by_length_and_starts_uniformly(
    trajectories, normalizer, lengths
):
    draws = 20_000
    indices = make_sampler(trajectories, normalizer, batch_size=draws).indices(0)
    drawn = np.searchsorted(trajectories.starts, indices, side="right") - 1
    observed = np.bincount(drawn, minlength=len(lengths))
    expected = draws * np.array(lengths) / sum(lengths)
    assert chi_square(observed, expected) < 24  # 1 in 1000 by chance, 7 degrees
    count = trajectories.num_transitions
    starts = np.bincount(indices, minlength=count)
    uniform = np.full(count, draws / count)
    assert chi_square(starts, uniform) < 105  # 1 in 1000 by chance, 65 degrees


@pytest.mark.parametrize("context_len", [1, 3, T, 100])
def test_tiling_contains_every_transition_once(trajectories, normalizer, context_len):
    sampler = make_sampler(trajectories, normalizer, context_len=context_len)
    batch = sampler.gather(sampler.tiling())
    states = batch.states[batch.mask.astype(bool)]
    np.testing.assert_allclose(
        states * normalizer.state_std + normalizer.state_mean,
        trajectories.observations[: trajectories.num_transitions],
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("context_len", [1, T, 100])
def test_windows_by_their_end_equal_the_naive_ones(
    trajectories, normalizer, context_len
):
    labels = Labels(*np.random.default_rng(1).normal(size=(2, 66)).astype("f4"))
    sampler = make_sampler(
        trajectories,
        normalizer,
        context_len=context_len,
        kind="window_ends",
        labels=labels,
    )
    batch = sampler.gather(np.arange(sampler.num_transitions))
    i = 0
    for k, length in enumerate(trajectories.lengths):
        for end in range(length):
            start = max(end + 1 - context_len, 0)
            size = end + 1 - start
            expected = naive_window(trajectories, normalizer, k, start, context_len)
            row = trajectories.starts[k] + start
            shown = labels.values[row : row + size] + labels.offsets[row + size - 1]
            expected = expected._replace(
                returns_to_go=pad(shown * np.float32(SCALE), context_len),
                **{
                    name: pad(getattr(expected, name)[:size], context_len)
                    for name in set(FIELDS) - {"timesteps", "returns_to_go"}
                },
            )
            assert_equal(Batch(*(array[i] for array in batch)), expected)
            i += 1
    assert i == sampler.num_transitions


def test_the_last_row_of_a_window_shows_its_label(trajectories, normalizer):
    """Also where windows are drawn by their start, as on held-out trajectories."""
    values, offsets = np.random.default_rng(1).normal(size=(2, 66)).astype("f4")
    sampler = make_sampler(trajectories, normalizer, labels=Labels(values, offsets))
    starts = sampler.tiling()
    batch, windows = sampler.gather(starts), sampler.windows(starts)
    last = batch.mask.sum(axis=1).astype(int) - 1
    rows = windows.rows + last
    shown = batch.returns_to_go[np.arange(len(starts)), last]
    expected = (values[rows] + offsets[rows]) * np.float32(SCALE)
    np.testing.assert_array_equal(shown, expected)
    assert (last == T - 1).any()


def test_episodes_are_whole_and_equally_likely(trajectories, normalizer):
    draws = 8_000
    sampler = make_sampler(
        trajectories, normalizer, batch_size=draws, context_len=40, kind="episodes"
    )
    indices = sampler.indices(0)
    drawn = np.bincount(np.searchsorted(trajectories.starts, indices), minlength=8)
    assert chi_square(drawn, np.full(8, draws / 8)) < 24  # 1 in 1000 by chance
    batch = sampler.gather(trajectories.starts)
    np.testing.assert_array_equal(batch.mask.sum(axis=1), trajectories.lengths)
