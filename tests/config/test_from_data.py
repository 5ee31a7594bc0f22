"""Values that a configuration leaves to the data."""

from dataclasses import replace

import numpy as np
import pytest

from dt_jax.config import default_config, from_data
from dt_jax.config.keys import keys_of
from dt_jax.data.labels import Labels
from dt_jax.data.registry import NO_LIMIT, lookup
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories
from dt_jax.utils.errors import UserError

HOPPER = lookup("hopper-demo")
FROM_DATA = [name for name, key in keys_of("dt").items() if key.from_data]


def trajectories(*returns: float, length: int = 4) -> Trajectories:
    """Return trajectories with these returns, whose last reward is the only one."""
    rows = len(returns) * length
    timeouts = np.arange(1, rows + 1) % length == 0
    rewards = np.zeros(rows, np.float32)
    rewards[timeouts] = returns
    matrix = np.zeros((rows, 2), np.float32)
    raw = RawData(matrix, matrix, rewards, np.zeros(rows, bool), timeouts)
    return Trajectories.from_raw(raw, source="x")


def fill_in(data, spec=None, labels=(), **changes):
    config = default_config(**dict.fromkeys(FROM_DATA) | changes)
    return from_data.fill_in(config.lock(), data, spec, labels)


def test_every_none_is_filled_and_reported():
    config, lines = fill_in(trajectories(3234.56, 1000, 200))
    assert config.episode_len == 4
    assert config.reward_scale == pytest.approx(0.001)
    assert config.target_returns == (3230.0, 1480.0)
    assert config.holdout_fraction == pytest.approx(0.1)
    assert lines == [
        "reward_scale 0.001: returns reach ±3.23e+03",
        "target_returns 3230, 1480: the data's best and mean return",
        "episode_len 4: the longest trajectory",
        "holdout_fraction 0.1: no environment is evaluated",
    ]
    assert config.is_locked


def test_a_value_of_the_data_that_its_key_does_not_accept_is_refused(monkeypatch):
    """A run with it could not be read back."""
    longest = from_data.Choices(episode_len=(10_000_001, ""))
    monkeypatch.setattr(from_data, "from_data", lambda *_: longest)
    with pytest.raises(UserError, match="episode_len=10000001: expected an integer"):
        fill_in(
            trajectories(1.0),
            episode_len=None,
            max_action=1.0,
            reward_scale=1.0,
            target_returns=(1.0,),
        )


def test_given_values_are_kept():
    chosen = {
        "episode_len": 77,
        "max_action": 3.0,
        "reward_scale": 0.0,
        "target_returns": (1.0,),
        "holdout_fraction": 0.0,
    }
    config, lines = fill_in(trajectories(5, 6), **chosen)
    assert {key: config[key] for key in chosen} == chosen
    assert lines == []


@pytest.mark.parametrize(
    ("largest", "scale"),
    [(9.99, 1), (10, 0.1), (-350, 0.01), (0.02, 100), (0, 1), (1e-40, 1)],
)
def test_the_largest_return_is_scaled_to_between_1_and_10(largest, scale):
    config, _ = fill_in(trajectories(largest, largest / 3))
    assert config.reward_scale == pytest.approx(scale)
    assert abs(largest) < 1e-30 or 1 <= abs(largest) * config.reward_scale < 10


def test_max_action_is_1_whatever_the_range_of_the_actions():
    """Because any range is mapped to it."""
    data = trajectories(1, 2)
    data = replace(data, actions=data.actions + np.float32(1000))
    for spec in (None, HOPPER):
        config, lines = fill_in(data, spec)
        assert config.max_action == 1
        assert "max_action" not in " ".join(lines)


def test_targets_are_labels_of_first_steps_where_there_are_labels():
    """Of two seeds: the mean over them of the largest, and of all."""
    data = trajectories(1, 2, length=2)
    first = Labels(np.float32([30, 99, 10, 99]))
    second = Labels(np.float32([5, 0, 20, 0]), offsets=np.float32([5, 0, 20, 0]))
    config, lines = fill_in(data, labels=(first, second))
    assert config.target_returns == (35.0, 22.5)
    line = "target_returns 35, 22.5: the largest and mean label of a first step"
    assert f"{line}, mean over seeds" in lines
    _, lines = fill_in(data, labels=(first,))
    assert "target_returns 30, 20: the largest and mean label of a first step" in lines


def test_targets_are_returns_that_the_environments_time_limit_allows():
    """Each trajectory has 8 steps, the last with its return, and 1 in each other."""
    data = trajectories(100, 50, length=8)
    rewards = np.where(data.rewards == 0, np.float32(1), data.rewards)
    raw = RawData(data.observations, data.actions, rewards, rewards < 0, rewards > 1)
    data = Trajectories.from_raw(raw, source="x")
    assert fill_in(data)[0].target_returns == (107.0, 82.0)
    short = replace(HOPPER, max_episode_steps=5)
    config, lines = fill_in(data, short)
    assert config.target_returns == (5.0,)
    assert "target_returns 5: the data's best and mean return within the " in lines[1]
    warned = from_data.return_warnings(config, data, short)
    assert len(warned) == 1
    assert "up to 8 steps, but episodes of hopper-demo end after 5:" in warned[0]
    # D4RL's antmaze files have one step more.
    for limit in (7, 8):
        enough = replace(HOPPER, max_episode_steps=limit)
        assert from_data.return_warnings(fill_in(data, enough)[0], data, enough) == []


@pytest.mark.parametrize(
    ("reward_scale", "warns"),
    [(0.001, False), (1e3, True), (1e-8, True), (20, False), (0, False)],
)
def test_a_reward_scale_that_is_orders_of_magnitude_off_is_a_warning(
    reward_scale, warns
):
    data = trajectories(3234, 12)
    config, _ = fill_in(data, HOPPER, reward_scale=float(reward_scale))
    lines = from_data.return_warnings(config, data, HOPPER)
    assert len(lines) == warns
    assert not warns or "largest return, 3.23e+03, to" in lines[0]


@pytest.mark.parametrize(
    ("returns", "reward_scale", "targets", "warns"),
    [
        ((-500_003, -500_060), 1e-5, (-500_003.0, -500_032.0), True),
        ((3000, 3030), 1e-3, (3030.0, 3015.0), False),
        ((30, 30.1, 35), 1e-4, (35.0, 31.7), True),
        ((-500_000, -500_000), 1e-5, (-500_000.0,), False),
    ],
)
def test_returns_that_differ_by_less_than_the_network_distinguishes_are_a_warning(
    returns, reward_scale, targets, warns
):
    """The targets have as many digits as tell them apart."""
    data = trajectories(*returns)
    config, printed = fill_in(data, HOPPER, reward_scale=reward_scale)
    assert config.target_returns == targets
    assert f"target_returns {targets[0]:.7g}" in " ".join(printed)
    lines = from_data.return_warnings(config, data, HOPPER)
    assert len(lines) == warns
    offset = np.mean(returns) / 4
    assert not warns or f"such as the mean reward, {offset:.6g}" in lines[0]


def test_data_without_rewards_has_no_wrong_reward_scale():
    data = trajectories(0, 0)
    assert from_data.return_warnings(fill_in(data, HOPPER)[0], data, HOPPER) == []


@pytest.mark.parametrize(
    ("reward", "label", "warns"),
    [(-1, 0.0, False), (-1, 0.5, True), (2, 10.0, False), (2, 10.5, True)],
)
def test_labels_that_no_rewards_allow_are_a_warning(reward, label, warns):
    data = trajectories(reward, reward)
    config, _ = fill_in(data, None, agent="qdt", episode_len=5)
    values = np.full(len(data.rewards), -1, np.float32)
    values[-1] = label
    labels = [Labels(-np.ones_like(values)), Labels(values)]
    line = from_data.label_warning(config, data, None, labels)
    assert bool(line) == warns
    assert not warns or f"the largest label is {label:g}, but" in line


@pytest.mark.parametrize(
    ("returns", "targets", "far"),
    [
        ((-280, 5300), (12000.0, 6000.0), ""),  # CORL's for halfcheetah-medium
        ((0, 1), (1.0, 0.5), ""),
        ((-20, 3200), (3.6e6, 1800.0), "3.6e+06 are"),
        ((-1500, -100), (12000.0, 6000.0), "12000, 6000 are"),
        ((100, 101), (-1000.0, 100.0), "-1000 are"),
    ],
)
def test_targets_far_outside_the_data_are_a_warning(returns, targets, far):
    data = trajectories(*returns)
    config, _ = fill_in(data, HOPPER, target_returns=targets)
    lines = from_data.return_warnings(config, data, HOPPER)
    assert len(lines) == bool(far)
    assert not far or f"target_returns {far} far outside" in lines[0]
    # They are used by evaluations only.
    config, _ = fill_in(data, HOPPER, target_returns=targets, eval_episodes=0)
    assert from_data.return_warnings(config, data, HOPPER) == []


def test_equal_target_returns_are_merged():
    data = trajectories(0, *[1000] * 3000)
    assert fill_in(data)[0].target_returns == (1000.0,)


def test_episode_len_covers_the_environments_time_limit():
    """Longer episodes would be cut off, and their returns would be too low."""
    data = trajectories(1, 2)
    assert fill_in(data, HOPPER)[0].episode_len == 1000
    endless = replace(HOPPER, max_episode_steps=NO_LIMIT)
    assert fill_in(data, endless)[0].episode_len == 4
    short = replace(HOPPER, max_episode_steps=2)
    assert fill_in(data, short)[0].episode_len == 4


@pytest.mark.parametrize(
    ("spec", "episodes", "count", "fraction"),
    [(HOPPER, 10, 5, 0), (HOPPER, 0, 5, 0.1), (None, 10, 5, 0.1), (None, 0, 1, 0)],
)
def test_trajectories_are_held_out_if_no_environment_is_evaluated(
    spec, episodes, count, fraction
):
    data = trajectories(*range(1, count + 1))
    config, lines = fill_in(data, spec, eval_episodes=episodes)
    assert config.holdout_fraction == fraction
    assert ("holdout" in " ".join(lines)) == (spec is None or episodes == 0)
