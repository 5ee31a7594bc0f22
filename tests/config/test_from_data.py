"""Values that a configuration leaves to the data."""

from dataclasses import replace

import numpy as np
import pytest

from dt_jax.config import default_config, from_data
from dt_jax.config.keys import keys_of
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


def fill_in(data, spec=None, **changes):
    config = default_config(**dict.fromkeys(FROM_DATA) | changes)
    return from_data.fill_in(config.lock(), data, spec)


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


@pytest.mark.parametrize(
    ("least", "largest", "max_action"), [(-1, 0.5, 1), (-2.5, 1, 2.5), (0, 7, 7)]
)
def test_without_an_environment_max_action_covers_the_data(least, largest, max_action):
    data = trajectories(1, 2)
    actions = np.zeros_like(data.actions)
    actions[0], actions[1] = least, largest
    data = replace(data, actions=actions)
    config, lines = fill_in(data)
    assert config.max_action == max_action
    assert ("max_action" in " ".join(lines)) == (max_action != 1)
    assert fill_in(data, HOPPER)[0].max_action == 1  # its bounds are mapped to ±1


def test_equal_target_returns_are_merged():
    assert fill_in(trajectories(100.01, 100))[0].target_returns == (100.0,)


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
