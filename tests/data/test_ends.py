"""Where the episodes of a file end, by each array that may tell it."""

import re
import warnings

import numpy as np
import pytest

from dt_jax.data.d4rl import read_d4rl
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories
from dt_jax.utils.errors import UserError

LENGTHS = [12, 7, 30, 4, 25]


def episodes(lengths=LENGTHS, terminated=0, seed=0):
    """Return complete episodes; the first `terminated` of them end with a terminal."""
    rng, rows = np.random.default_rng(seed), sum(lengths)
    last = np.cumsum(lengths) - 1
    flags = np.zeros((2, rows), bool)
    flags[0, last[:terminated]] = True
    flags[1, last[terminated:]] = True
    numbers = rng.standard_normal((rows, 6)).astype(np.float32)
    return RawData(numbers[:, :3], numbers[:, 3:5], numbers[:, 5], *flags)


def next_observations(raw):
    """Return the observation after each action; a random one after an episode."""
    following = np.roll(raw.observations, -1, axis=0)
    ended = raw.terminals | raw.timeouts
    following[ended] = np.random.default_rng(1).standard_normal((ended.sum(), 3))
    return following


def lengths_of(path, **options):
    """Return the lengths of a file's trajectories; warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raw = read_d4rl(path, **options)
    return Trajectories.from_raw(raw, source="x").lengths.tolist()


def assert_refused(path, message, **options):
    with pytest.raises(UserError, match=re.escape(f"{path}: ")) as error:
        read_d4rl(path, **options)
    assert message in str(error.value)


@pytest.mark.parametrize("episode_len", [None, 30, 1000])
def test_terminals_that_mark_every_end_are_enough(write_hdf5, episode_len):
    path = write_hdf5(episodes(terminated=5), timeouts=None)
    assert lengths_of(path, episode_len=episode_len) == LENGTHS


def test_episodes_longer_than_episode_len_are_cut_in_spite_of_terminals(write_hdf5):
    path = write_hdf5(episodes(terminated=5), timeouts=None)
    with pytest.warns(UserWarning, match="assumed to end after 20 steps"):
        raw = read_d4rl(path, episode_len=20)
    assert Trajectories.from_raw(raw, source="x").lengths.max() == 20


def test_ends_are_needed_if_the_last_row_is_no_terminal(write_hdf5):
    path = write_hdf5(episodes(terminated=4), timeouts=None)
    assert_refused(path, "timeouts and episode_ends missing; add one of them, or set")


def test_episode_ends_replace_timeouts(raw, write_hdf5):
    ends = np.flatnonzero(raw.timeouts) + 1
    path = write_hdf5(raw, timeouts=None, episode_ends=ends)
    np.testing.assert_array_equal(read_d4rl(path).timeouts, raw.timeouts)
    wrong = ~raw.timeouts  # timeouts take precedence
    path = write_hdf5(raw, episode_ends=np.flatnonzero(wrong) + 1)
    np.testing.assert_array_equal(read_d4rl(path).timeouts, raw.timeouts)


@pytest.mark.parametrize(
    "ends", [[], [3, 3], [5, 4], [0, 9], [9, 72], [1.0, 2.0], [[1], [2]]], ids=str
)
def test_invalid_episode_ends_are_reported(raw, write_hdf5, ends):
    path = write_hdf5(raw, timeouts=None, episode_ends=np.array(ends))
    assert_refused(path, "episode_ends must be increasing integers from 1 to 71")


LAST_ROWS = "each episode's last row, but must be the row after it; add 1 to each"


@pytest.mark.parametrize("lengths", [LENGTHS, [40], [20, 1, 1, 30]])
@pytest.mark.parametrize("terminated", [0, 1, 5])
def test_last_rows_as_episode_ends_are_refused(write_hdf5, lengths, terminated):
    raw = episodes(lengths, terminated)
    ends = np.cumsum(lengths)
    path = write_hdf5(raw, timeouts=None, episode_ends=ends)
    assert lengths_of(path) == lengths
    path = write_hdf5(raw, timeouts=None, episode_ends=ends - 1)
    assert_refused(path, LAST_ROWS)


@pytest.mark.parametrize("terminated", [0, 1, 4])
def test_last_rows_are_recognised_before_an_unfinished_episode(write_hdf5, terminated):
    """By terminals, or by next observations."""
    raw, ends = episodes(terminated=terminated), np.cumsum(LENGTHS)[:-1]
    told = next_observations(raw) if terminated == 0 else None
    arrays = {"timeouts": None, "next_observations": told}
    path = write_hdf5(raw, **arrays, episode_ends=ends)
    assert lengths_of(path) == LENGTHS[:-1]
    path = write_hdf5(raw, **arrays, episode_ends=ends - 1)
    assert_refused(path, LAST_ROWS)


def test_one_row_may_be_left_over_if_terminals_mark_the_ends(write_hdf5):
    raw = episodes([*LENGTHS, 1], terminated=5)
    path = write_hdf5(raw, timeouts=None, episode_ends=np.cumsum(LENGTHS))
    assert lengths_of(path) == LENGTHS


@pytest.mark.parametrize("memory_limit_gb", [None, 0])
@pytest.mark.parametrize("terminated", [0, 2])
@pytest.mark.parametrize("kept", ["no ends", "timeouts", "episode_ends"])
def test_dropped_last_rows_are_found_by_next_observations(
    write_hdf5, terminated, kept, memory_limit_gb
):
    """Of `d4rl.qlearning_dataset`, which drops the last row of a timed-out episode."""
    whole = episodes([*LENGTHS, 10], terminated)
    following = next_observations(whole)
    keep = ~whole.timeouts
    raw = RawData(*(array[keep] for array in whole))
    assert not raw.timeouts.any()
    changes = {"next_observations": following[keep].astype(np.float64)}
    if kept != "timeouts":
        changes["timeouts"] = None
    if kept == "episode_ends":
        changes["episode_ends"] = [len(raw.rewards)]
    path = write_hdf5(raw, **changes)
    cut = len(LENGTHS) - terminated
    message = f"in {cut} rows that do not end an episode, next_observations differs "
    message += "from the next row's observation: episodes are cut there"
    with pytest.warns(UserWarning, match=message):
        read = read_d4rl(path, memory_limit_gb=memory_limit_gb)
    store = Trajectories.from_raw(read, source="x")
    expected = [n - (k >= terminated) for k, n in enumerate(LENGTHS)]
    expected += [9] * (kept == "episode_ends")
    assert store.lengths.tolist() == expected
    assert store.terminated.sum() == terminated


def test_ends_that_contradict_next_observations_are_refused(write_hdf5):
    """They were counted before rows were dropped."""
    whole = episodes()
    keep = ~whole.timeouts
    raw = RawData(*(array[keep] for array in whole))
    following = next_observations(whole)[keep]
    stale = np.cumsum(LENGTHS)[:3]
    changes = {"timeouts": None, "next_observations": following}
    path = write_hdf5(raw, **changes, episode_ends=stale)
    assert_refused(path, "correct episode_ends, or remove it, so that episodes end")
    flags = np.isin(np.arange(len(keep) - len(LENGTHS)), stale)
    path = write_hdf5(raw, timeouts=flags, next_observations=following)
    assert_refused(path, "correct timeouts, or remove it, so that episodes end")


@pytest.mark.parametrize("terminated", [0, 2])
def test_next_observations_that_agree_change_nothing(write_hdf5, terminated):
    raw = episodes(terminated=terminated)
    path = write_hdf5(raw, next_observations=next_observations(raw))
    assert lengths_of(path) == LENGTHS
    # Without a reset, an end of a trajectory is not visible in them.
    path = write_hdf5(raw, next_observations=np.roll(raw.observations, -1, axis=0))
    assert lengths_of(path) == LENGTHS


@pytest.mark.parametrize(
    "other", [lambda n: n[:, :2], lambda n: n.astype("S"), lambda n: n[:-1]]
)
def test_other_next_observations_are_ignored(write_hdf5, other):
    raw = episodes()
    path = write_hdf5(raw, next_observations=other(next_observations(raw) + 1))
    assert lengths_of(path) == LENGTHS


def test_next_observations_that_never_follow_are_ignored_with_a_warning(write_hdf5):
    raw = episodes()
    path = write_hdf5(raw, next_observations=raw.observations * 2)
    with pytest.warns(UserWarning, match="ignored; rows must be in the order of rec"):
        read = read_d4rl(path)
    np.testing.assert_array_equal(read.timeouts, raw.timeouts)


@pytest.mark.parametrize("episode_len", [1, 7, 39, 40, 1000])
def test_episode_len_replaces_missing_episode_ends(raw, write_hdf5, episode_len):
    timeouts, age = [], 0
    for terminal in raw.terminals:
        age += 1
        timeouts.append(age == episode_len)
        if terminal or timeouts[-1]:
            age = 0
    path = write_hdf5(raw, timeouts=None)
    with pytest.warns(UserWarning, match=f"to end after {episode_len} steps"):
        read = read_d4rl(path, episode_len=episode_len)
    np.testing.assert_array_equal(read.timeouts, timeouts)
