from dataclasses import replace

import numpy as np
import pytest

from dt_jax.config import default_config
from dt_jax.config import from_data as data_defaults
from dt_jax.data.registry import NO_LIMIT, lookup
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories

HOPPER = lookup("hopper-demo")
OPEN = dict.fromkeys(data_defaults.KEYS)


def trajectories(*returns: float, length: int = 4) -> Trajectories:
    """Make trajectories of these returns, all earned at the end."""
    rows = len(returns) * length
    timeouts = np.arange(1, rows + 1) % length == 0
    rewards = np.zeros(rows, np.float32)
    rewards[timeouts] = returns
    matrix = np.zeros((rows, 2), np.float32)
    raw = RawData(matrix, matrix, rewards, np.zeros(rows, bool), timeouts)
    return Trajectories.from_raw(raw, source="x")


def fill_in(data, spec=None, **changes):
    config = default_config()
    config.update(OPEN | changes)
    return data_defaults.fill_in(config.lock(), data, spec)


def test_all_that_is_open_is_filled_and_told():
    config, lines = fill_in(trajectories(3234.56, 1000, 200))
    assert config.episode_len == 4
    assert config.reward_scale == pytest.approx(0.001)
    assert config.target_returns == (3230.0, 1480.0)
    assert config.holdout_fraction == pytest.approx(0.1)
    assert lines == [
        "episode_len 4: the longest trajectory",
        "reward_scale 0.001: returns go as far as ±3.23e+03",
        "target_returns 3230, 1480: the data's best and mean return",
        "holdout_fraction 0.1: no episodes are played",
    ]
    assert config.is_locked


def test_what_is_set_stays():
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
    [
        (9.99, 1),
        (10, 0.1),
        (-350, 0.01),
        (0.02, 100),
        (0, 1),
        (1e-40, 1),
        (12135, 1e-4),
    ],
)
def test_the_largest_return_is_scaled_to_between_1_and_10(largest, scale):
    config, _ = fill_in(trajectories(largest, largest / 3))
    assert config.reward_scale == pytest.approx(scale)
    assert abs(largest) < 1e-30 or 1 <= abs(largest) * config.reward_scale < 10


@pytest.mark.parametrize(
    ("least", "largest", "max_action"), [(-1, 0.5, 1), (-2.5, 1, 2.5), (0, 7, 7)]
)
def test_the_largest_action_can_be_given(least, largest, max_action):
    data = trajectories(1, 2)
    actions = np.zeros_like(data.actions)
    actions[0], actions[1] = least, largest
    data = replace(data, actions=actions)
    config, lines = fill_in(data)
    assert config.max_action == max_action
    assert ("max_action" in " ".join(lines)) == (max_action != 1)
    assert fill_in(data, HOPPER)[0].max_action == 1  # whose bounds are mapped to it


def test_returns_that_agree_are_asked_for_once():
    assert fill_in(trajectories(100.01, 100))[0].target_returns == (100.0,)


def test_episodes_to_be_played_fit():
    """An environment that plays longer would be cut off, and its returns wrong."""
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
def test_trajectories_are_held_out_where_nothing_is_played(
    spec, episodes, count, fraction
):
    data = trajectories(*range(1, count + 1))
    config, lines = fill_in(data, spec, eval_episodes=episodes)
    assert config.holdout_fraction == fraction
    assert ("holdout" in " ".join(lines)) == (spec is None or episodes == 0)
