"""The environments given by a table, and their datasets."""

import numpy as np
import pytest
from golden import golden

from dt_jax.data.registry import lookup
from dt_jax.datasets.demo.tabular import collect
from dt_jax.envs.tabular import Tabular, grid


def play(name, choices, seeds=(0,)):
    """Return the sum of rewards of each episode, with the same choices in all."""
    env = Tabular(name, list(seeds), max_episode_steps=10)
    env.host_reset()
    actions = np.repeat(np.eye(env.action_size)[:, None], len(seeds), axis=1)
    total = np.zeros(len(seeds))
    running = np.ones(len(seeds), bool)
    for choice in choices:
        step = env.host_step(
            np.broadcast_to(actions[choice], (len(seeds), env.action_size))
        )
        total += running * step.rewards
        running &= ~step.done
    assert not running.any()
    return total


@pytest.mark.parametrize(
    ("choices", "expected"), [((1,), 1), ((0, 0), 0), ((0, 1), 10)]
)
def test_returns_in_the_corridor(choices, expected):
    assert play("corridor", choices) == expected


@pytest.mark.parametrize(
    ("choice", "outcomes"), [(0, {5, -15}), (1, {1, -6}), (2, {1})]
)
def test_outcomes_of_gambling_are_equally_likely(choice, outcomes):
    returns = play("gambling", (choice, 0), range(2000))
    assert set(returns) == outcomes
    # Within 4 standard errors.
    assert abs(np.mean(returns == max(outcomes)) - 1 / len(outcomes)) < 0.045
    again = play("gambling", (choice, 2), range(2000))
    np.testing.assert_array_equal(returns, again)  # the seeds decide


def test_the_corridors_data_has_three_trajectories_in_equal_shares():
    (episodes,) = collect(lookup("corridor-demo"), 1500, 0, lambda n: None)
    assert len(episodes) == 900
    returns = [episode.rewards.sum() for episode in episodes]
    assert sorted(returns) == [0] * 300 + [1] * 300 + [10] * 300
    starts = [episode.observations[0].argmax() for episode in episodes]
    assert {(s, r) for s, r in zip(starts, returns, strict=True)} == {
        (0, 0),
        (1, 10),
        (0, 1),
    }
    assert all(episode.terminals[-1] for episode in episodes)


def test_gamblings_data_is_uniformly_random():
    (episodes,) = collect(lookup("gambling-demo"), 6000, 0, lambda n: None)
    assert len(episodes) == 3000
    first = np.array([episode.actions[0].argmax() for episode in episodes])
    returns = np.array([episode.rewards.sum() for episode in episodes])
    for choice, expected in enumerate((-5, -2.5, 1)):
        assert abs(np.mean(first == choice) - 1 / 3) < 0.035
        assert abs(returns[first == choice].mean() - expected) < 1.3
    assert all(episode.terminals[-1] for episode in episodes)


def test_golden_qdt_grid_is_the_papers_maze():
    arrays, _ = golden("qdt.npz")
    theirs = arrays["maze/next_reward_done"].reshape(36, 8, 3)
    ours = np.concatenate(grid(), axis=-1)
    np.testing.assert_array_equal(ours[:-1], theirs[:-1])  # nothing follows the goal


def test_the_grids_data_has_random_episodes_of_at_most_49_steps():
    (episodes,) = collect(lookup("grid-demo"), 4500, 0, lambda n: None)
    assert 90 <= len(episodes) <= 110
    lengths = np.array([len(episode.rewards) for episode in episodes])
    assert lengths.max() == 49
    at_goal = np.array([episode.rewards[-1] == 90 for episode in episodes])
    ended = np.array([episode.terminals[-1] for episode in episodes])
    np.testing.assert_array_equal(at_goal, ended)
    assert (lengths[~ended] == 49).all()
