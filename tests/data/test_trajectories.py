import dataclasses
import tracemalloc

import numpy as np
import pytest

from dt_jax.data.arrays import BLOCK_ROWS
from dt_jax.data.d4rl import read_d4rl
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories
from dt_jax.utils.errors import UserError

ARRAYS = [f.name for f in dataclasses.fields(Trajectories) if f.type is np.ndarray]


def sum_to_end(rewards: np.ndarray) -> np.ndarray:
    """Sum in float64, one by one, from the end; return float32."""
    total = rewards.astype(np.float64)
    for t in reversed(range(len(rewards) - 1)):
        total[t] += total[t + 1]
    return total.astype(np.float32)


def flat(lengths: list[int], tail: int = 0, size: int = 1) -> RawData:
    """Return trajectories of these lengths, and `tail` rows of an unfinished one."""
    random = np.random.default_rng(1)
    rows = sum(lengths) + tail
    timeouts = np.zeros(rows, bool)
    timeouts[np.cumsum(lengths) - 1] = True
    return RawData(
        observations=random.normal(size=(rows, size)).astype(np.float32),
        actions=random.normal(size=(rows, size)).astype(np.float32),
        rewards=random.normal(size=rows).astype(np.float32),
        terminals=np.zeros(rows, bool),
        timeouts=timeouts,
    )


def test_split_matches_a_naive_loop(raw, lengths):
    store = Trajectories.from_raw(raw, source="x")
    expected, rows = [], []
    for i in range(len(raw.rewards)):
        rows.append(i)
        if raw.terminals[i] or raw.timeouts[i]:
            expected.append(rows)
            rows = []
    assert store.dropped_tail == len(rows) == 5
    assert [len(rows) for rows in expected] == lengths
    assert store.num_trajectories == len(expected)
    assert store.num_transitions == sum(lengths)
    assert store.starts.dtype == store.lengths.dtype == np.int64
    for start, length, rows in zip(store.starts, store.lengths, expected, strict=True):
        window = slice(start, start + length)
        for ours, theirs in [
            (store.observations, raw.observations[rows]),
            (store.actions, raw.actions[rows]),
            (store.rewards, raw.rewards[rows]),
            (store.returns_to_go, sum_to_end(raw.rewards[rows])),
        ]:
            np.testing.assert_array_equal(ours[window], theirs, strict=True)
    totals = [sum_to_end(raw.rewards[rows])[0] for rows in expected]
    np.testing.assert_array_equal(store.episode_returns, totals)


def test_mean_and_std_are_float64_sums_over_all_rows_including_the_tail():
    raw = flat([3] * BLOCK_ROWS, tail=BLOCK_ROWS // 2, size=2)
    raw = raw._replace(observations=raw.observations + np.float32(1000))
    raw.observations[-BLOCK_ROWS // 2 :] += 5  # changes the mean only with the tail
    store = Trajectories.from_raw(raw, source="x")
    wide = raw.observations.astype(np.float64)
    assert store.state_mean.dtype == store.state_std.dtype == np.float32
    np.testing.assert_array_equal(store.state_mean, wide.mean(0).astype(np.float32))
    std = (wide.std(0) + 1e-6).astype(np.float32)
    np.testing.assert_array_max_ulp(store.state_std, std, maxulp=1)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.5, -1234.567, 5.3e6])
def test_a_constant_number_is_centred_but_not_scaled(value):
    """So that in play another value, however near, is not thousands of std away."""
    raw = flat([3] * BLOCK_ROWS, tail=5, size=3)
    raw.observations[:, 1] = value
    raw.observations[:, 2] = value
    raw.observations[-1, 2] = np.nextafter(np.float32(value), np.float32(np.inf))
    store = Trajectories.from_raw(raw, source="x")
    assert store.constant.tolist() == [False, True, False]
    assert store.state_std[1] == 1
    assert store.state_mean[1] == np.float32(value)  # it trains on exactly 0
    assert store.state_std[2] < 1


@pytest.mark.parametrize(
    "lengths", [[1], [1] * 2000, [500], [1, 300, 1, 2, 299, 300, 1], [30] * 30]
)
def test_returns_to_go_equal_the_sequential_sum_bit_for_bit(lengths):
    raw = flat(lengths)
    store = Trajectories.from_raw(raw, source="x")
    pieces = np.split(raw.rewards, np.cumsum(lengths)[:-1])
    expected = np.concatenate([sum_to_end(piece) for piece in pieces])
    np.testing.assert_array_equal(store.returns_to_go, expected, strict=True)


def test_a_million_rewards_of_a_tenth_have_a_return_of_a_hundred_thousand():
    rows = 1_000_000
    raw = flat([rows])._replace(rewards=np.full(rows, 0.1, np.float32))
    store = Trajectories.from_raw(raw, source="x")
    assert store.episode_returns == np.float32(100_000)
    expected = 0.1 * np.arange(rows, 0, -1)
    np.testing.assert_allclose(store.returns_to_go, expected, rtol=1e-7)


def test_arrays_are_read_only_views(raw):
    store = Trajectories.from_raw(raw, source="x")
    for name in ARRAYS:
        assert not getattr(store, name).flags.writeable, name
    for name in ("observations", "actions", "rewards"):
        assert np.shares_memory(getattr(store, name), getattr(raw, name)), name
    with pytest.raises(AttributeError):
        store.dropped_tail = 0
    raw.rewards[0] = 0  # the caller's own array stays writeable


def test_peak_memory_while_loading_is_below_two_and_a_half_times_the_arrays(write_hdf5):
    raw = flat([50] * 2000, tail=10, size=17)
    path = write_hdf5(raw, observations=raw.observations.astype(np.float64))
    del raw
    tracemalloc.start()
    try:
        store = Trajectories.from_raw(read_d4rl(path), source="x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    arrays = sum(getattr(store, name).nbytes for name in ARRAYS)
    assert arrays < peak < 2.5 * arrays


def test_data_without_a_complete_trajectory_is_refused(raw):
    without = raw._replace(timeouts=np.zeros_like(raw.timeouts))
    Trajectories.from_raw(without, source="x")
    with pytest.raises(UserError, match=r"x: no complete .* set timeouts in the last"):
        Trajectories.from_raw(without, source="x", split="timeouts")
    without = without._replace(terminals=np.zeros_like(raw.terminals))
    with pytest.raises(UserError, match="x: no complete trajectory in 71 rows"):
        Trajectories.from_raw(without, source="x")


@pytest.mark.parametrize("sizes", [(4, 3), (5, 2)])
def test_sizes_of_another_environment_are_refused(raw, sizes):
    store = Trajectories.from_raw(raw, source="x")
    store.check_sizes(4, 2)
    message = f"x: .* size 4 and action size 2 .* {sizes[0]} and {sizes[1]}"
    with pytest.raises(UserError, match=message):
        store.check_sizes(*sizes)


def test_trajectory_may_exceed_episode_len_by_one_step(raw):
    store = Trajectories.from_raw(raw, source="x")
    store.check_lengths(39)
    message = "x: trajectory 5 has 40 steps.*set episode_len=40"
    with pytest.raises(UserError, match=message):
        store.check_lengths(38)


def test_split_at_timeouts_ignores_terminals(raw):
    """In antmaze the goal is a terminal in the middle of an episode."""
    store = Trajectories.from_raw(raw, source="x", split="timeouts")
    ends = np.flatnonzero(raw.timeouts) + 1
    np.testing.assert_array_equal(store.starts + store.lengths, ends)
    np.testing.assert_array_equal(store.starts, [0, *ends[:-1]])
    assert store.dropped_tail == len(raw.rewards) - ends[-1]
    for start, length in zip(store.starts, store.lengths, strict=True):
        rewards = raw.rewards[start : start + length]
        assert store.returns_to_go[start] == sum_to_end(rewards)[0]


@pytest.mark.parametrize("split", ["corl", "timeouts"])
def test_terminated_is_the_terminal_flag_of_the_last_row(raw, split):
    store = Trajectories.from_raw(raw, source="x", split=split)
    last = store.starts + store.lengths - 1
    assert store.terminated.dtype == bool
    np.testing.assert_array_equal(store.terminated, raw.terminals[last])
    assert 0 < store.terminated.sum() < len(last)


@pytest.mark.parametrize("block_rows", [1, 7, 8, 50, 10_000])
def test_returns_do_not_depend_on_the_block_size(raw, monkeypatch, block_rows):
    whole = Trajectories.from_raw(raw, source="x").returns_to_go
    monkeypatch.setattr("dt_jax.data.trajectories._BLOCK_ROWS", block_rows)
    parts = Trajectories.from_raw(raw, source="x").returns_to_go
    np.testing.assert_array_equal(parts, whole, strict=True)


@pytest.mark.parametrize(
    "rewards", [[3e38] * 4, [3e38, 3e38, 3e38, -3e38], [-3e38, 0, 3e38, 3e38]]
)
def test_returns_beyond_float32_are_refused(rewards):
    raw = flat([5, 4])
    raw.rewards[5:] = rewards
    with pytest.raises(UserError, match="the return of a trajectory exceeds float32"):
        Trajectories.from_raw(raw, source="x")


@pytest.mark.parametrize(
    ("fraction", "held_out"), [(0.01, 1), (0.25, 2), (0.5, 4), (0.99, 7)]
)
def test_hold_out_splits_the_trajectories(raw, fraction, held_out):
    store = Trajectories.from_raw(raw, source="x")
    kept, held = store.hold_out(fraction)
    assert held.num_trajectories == held_out
    assert kept.num_trajectories == 8 - held_out
    starts = np.concatenate([kept.starts, held.starts])
    np.testing.assert_array_equal(np.sort(starts), store.starts)
    for part in (kept, held):
        assert part.num_transitions == part.lengths.sum()
        ids = np.searchsorted(store.starts, part.starts)
        np.testing.assert_array_equal(part.lengths, store.lengths[ids])
        np.testing.assert_array_equal(part.terminated, store.terminated[ids])
        assert not part.terminated.flags.writeable
        assert part.observations is store.observations  # not copied
        np.testing.assert_array_equal(part.state_mean, store.state_mean)


def test_hold_out_is_deterministic_and_not_just_the_last_trajectories():
    store = Trajectories.from_raw(flat([2] * 1000), source="x")
    first, second = store.hold_out(0.1)[1], store.hold_out(0.1)[1]
    np.testing.assert_array_equal(first.starts, second.starts)
    assert 700 < first.starts.mean() < 1300


def test_the_only_trajectory_cannot_be_held_out():
    store = Trajectories.from_raw(flat([4]), source="x")
    with pytest.raises(UserError, match=r"x: .*holdout_fraction=0"):
        store.hold_out(0.1)
