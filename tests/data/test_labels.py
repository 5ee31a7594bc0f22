"""Labels: worked examples, a naive loop, and the numbers of d3rlpy and of the author.

The golden numbers show the label of a window's end; see tests/data/golden/README.md.
"""

import numpy as np
import pytest
from golden import golden, subtree

from dt_jax.data.labels import Labels, describe_labels, relabel
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.sampler import Sampler
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories


def make_trajectories(rewards, terminated, states=None):
    """Return trajectories of one-dimensional actions from lists of rewards."""
    lengths = np.array([len(each) for each in rewards])
    last = np.cumsum(lengths) - 1
    terminals, timeouts = np.zeros((2, lengths.sum()), bool)
    terminals[last], timeouts[last] = terminated, ~np.asarray(terminated)
    flat = np.concatenate(rewards).astype(np.float32)
    observations = np.zeros(len(flat)) if states is None else states
    return Trajectories.from_raw(
        RawData(
            observations=observations.astype(np.float32)[:, None],
            actions=np.zeros((len(flat), 1), np.float32),
            rewards=flat,
            terminals=terminals,
            timeouts=timeouts,
        ),
        source="test",
    )


def window_labels(trajectories, labels, context_len):
    """Return the labels [M, T] and masks of the windows that end at each transition."""
    normalizer = Normalizer(*np.array([[0], [1], [0], [1]], np.float32), 1.0)
    sampler = Sampler(
        trajectories,
        normalizer,
        batch_size=1,
        context_len=context_len,
        seed=0,
        fields=("returns_to_go", "mask"),
        kind="window_ends",
        labels=labels,
    )
    batch = sampler.gather(np.arange(trajectories.num_transitions))
    return batch.returns_to_go, batch.mask


def relabelled(trajectories, values):
    t = trajectories
    return relabel(t.rewards, values, t.starts, t.lengths)


def in_window_mode(trajectories, values):
    returns = trajectories.returns_to_go
    return Labels(returns, relabelled(trajectories, values) - returns)


def test_a_label_is_the_reward_and_the_better_of_label_and_value():
    # S -a0-> M -a0-> end with reward 0, S' -a1-> M -a1-> end with 10, S -a1-> end, 1.
    trajectories = make_trajectories([[0, 0], [0, 10], [1]], [True, True, True])
    values = np.array([3.0, 7, 5, 7, 3])  # of S, M, S', M, S
    np.testing.assert_array_equal(relabelled(trajectories, values), [7, 0, 10, 10, 1])


def test_no_value_counts_after_the_last_step_or_in_another_trajectory():
    trajectories = make_trajectories([[1, 2], [4], [8, 16, 32]], [True, False, False])
    unchanged = relabelled(trajectories, np.full(6, -1e3))
    np.testing.assert_array_equal(unchanged, trajectories.returns_to_go)
    at_starts = np.zeros(6)
    at_starts[trajectories.starts] = 1e6  # never the state after a step
    np.testing.assert_array_equal(relabelled(trajectories, at_starts), unchanged)


def test_labels_equal_those_of_a_loop():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, 50)
    trajectories = make_trajectories(
        [rng.normal(size=n) for n in lengths], rng.random(50) < 0.5
    )
    values = rng.normal(size=lengths.sum())
    expected = np.zeros(lengths.sum())
    for start, length in zip(trajectories.starts, lengths, strict=True):
        after = 0.0
        for row in range(start + length - 1, start - 1, -1):
            expected[row] = trajectories.rewards[row] + after
            after = max(expected[row], values[row])
    np.testing.assert_allclose(relabelled(trajectories, values), expected, rtol=1e-6)


def test_the_summary_counts_what_has_changed():
    trajectories = make_trajectories([[1, 1, 1, 1]], [True])  # returns 4, 3, 2, 1
    labels = Labels(np.array([9, 3, 2.5, 0], np.float32))
    summary = describe_labels(labels, trajectories.returns_to_go, trajectories.starts)
    assert summary["largest"] == 9
    assert summary["share_relabelled"] == 0.75
    assert summary["share_below_return"] == 0.25
    assert summary["difference_median"] == pytest.approx(0.25)
    assert summary["difference_90th_percentile"] == pytest.approx(0.5 + 0.7 * 4.5)
    assert sum(summary["histogram"]["labels"]) == 4


def test_golden_qdt_labels_of_d3rlpy():
    """d3rlpy loses the last reward of each buffer, and shows the last return as it is.

    So rewards end with 0 here, and windows that end with a buffer are left out.
    """
    arrays, _ = golden("qdt.npz")
    mixed = subtree(arrays, "mixed/")
    count = 1 + max(int(key.split("/")[1]) for key in mixed if key[:7] == "episode")
    rewards, values, terminated = [], [], []
    for i in range(count):
        episode = subtree(mixed, f"episode/{i}/")
        kept = int(episode["transitions"])
        rewards.append(np.append(episode["rewards"][: kept - 1], 0))
        values.append(episode["value_samples"].mean(axis=0)[:kept])
        terminated.append(bool(episode["terminated"]))
    trajectories = make_trajectories(rewards, terminated)
    labels = in_window_mode(trajectories, np.concatenate(values))
    ours, mask = window_labels(trajectories, labels, int(mixed["context_size"]))
    window = subtree(mixed, "window/")
    last = np.cumsum(trajectories.lengths) - 1
    others = np.setdiff1d(np.arange(len(ours)), last)
    assert len(others) > len(last)
    assert len(set(terminated)) == 2
    for row in others:
        theirs = window["returns_to_go"][row][window["masks"][row] == 1]
        np.testing.assert_allclose(ours[row][mask[row] == 1], theirs, atol=1e-6)


def test_golden_qdt_labels_of_the_author():
    arrays, _ = golden("qdt.npz")
    author = subtree(arrays, "author/")
    steps = author["transitions"]  # s, a, r, s', done
    ends = np.flatnonzero(steps[:, 4]) + 1
    episodes = np.split(steps, ends[:-1])
    trajectories = make_trajectories(
        [episode[:, 2] for episode in episodes], [True] * len(episodes), steps[:, 0]
    )
    values = author["q_table"].max(axis=1)[steps[:, 0].astype(int)]
    labels = in_window_mode(trajectories, values)
    assert (labels.offsets != 0).any()
    ours, _ = window_labels(trajectories, labels, context_len=2)
    # The author's windows: from the last to the first, each with two steps.
    starts = trajectories.starts
    full = [i for i in range(len(steps) - 1, -1, -1) if i not in starts]
    np.testing.assert_array_equal(
        trajectories.observations[full, 0], author["relabelled/x"][:, 1, 1]
    )
    np.testing.assert_allclose(ours[full], author["relabelled/x"][:, :, 2], atol=1e-4)
