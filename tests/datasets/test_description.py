import dataclasses
import re

import numpy as np
import pytest

from dt_jax.config import default_config
from dt_jax.data import arrays
from dt_jax.data.registry import lookup, normalized_score
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets import Dataset, describe, describe_dataset
from dt_jax.training.train import make_normalizer
from dt_jax.utils.errors import UserError

LENGTHS = [1, 7, 1, 40, 12]
TAIL = 3
HOPPER = lookup("hopper-medium-v2")


def make_trajectories(
    lengths=LENGTHS, size=4, dtype=np.float32, **changes
) -> Trajectories:
    """Return trajectories of random numbers; observation 2 is always 7."""
    random = np.random.default_rng(0)
    rows = sum(lengths) + TAIL
    observations = random.normal(3, 2, (rows, size)).astype(dtype)
    observations[:, 2] = 7
    rewards = np.round(random.normal(size=rows), 1).astype(dtype)
    rewards[::3] = 0
    timeouts = np.zeros(rows, bool)
    timeouts[np.cumsum(lengths) - 1] = True
    raw = RawData(
        observations=observations,
        actions=random.uniform(-1, 1, (rows, 3)).astype(dtype),
        rewards=rewards,
        terminals=np.zeros(rows, bool),
        timeouts=timeouts,
    )
    return Trajectories.from_raw(raw._replace(**changes), source="made.hdf5")


def summary(trajectories: Trajectories, spec=None) -> str:
    return describe_dataset(Dataset(trajectories, "made.hdf5", "ab" * 32), spec)


def table(text: str, name: str) -> list[str]:
    """Return the cells of the table row `name`."""
    return re.search(rf"^ *{name}  +(.*)$", text, re.MULTILINE)[1].split()


@pytest.mark.parametrize(
    ("low", "high"),
    [(-0.5, 0.5), ((-1.0, -0.25, 0.0), (1.0, 0.5, 0.75))],
)
def test_out_of_range_matches_a_loop(low, high, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_ROWS", 16)
    actions = make_trajectories().actions
    excess = actions - np.clip(actions.astype(float), low, high)
    rows = int((np.abs(excess) > 1e-3 * np.subtract(high, low)).any(axis=1).sum())
    farthest = np.abs(excess).argmax()
    assert 0 < rows < len(actions)
    found = describe.out_of_range(actions, low, high)
    value, column = actions.flat[farthest], farthest % 3
    assert found == (rows, value, np.abs(excess).max(), column)


def test_rounding_is_not_out_of_range():
    actions = np.array([[1.0, -1.0], [1.0019, -1.0019], [np.nextafter(1, 2), 0.5]])
    assert describe.out_of_range(actions, -1, 1).rows == 0
    assert describe.out_of_range(actions, -0.9, 0.9).rows == 3
    assert describe.out_of_range(1.002 * actions[1:2], -1, 1).rows == 1


def test_action_range_warning():
    actions = np.zeros((sum(LENGTHS) + TAIL, 3), np.float32)
    actions[5] = 1.25, -1.3, 0
    actions[9] = -1.75
    trajectories = make_trajectories(actions=actions)
    line = describe.action_range_warning(trajectories, HOPPER)
    assert "2 of 61 actions are outside the bounds -1 to 1, by up to 0.750" in line
    assert "check the units of actions" in line
    spec = dataclasses.replace(HOPPER, action_low=(-1, -1, 0), action_high=(1, 1, 1))
    line = describe.action_range_warning(trajectories, spec)
    assert "2 of 61 actions are outside their bounds between -1 and 1" in line
    assert describe.action_range_warning(trajectories, None) is None


def test_constant_observation_numbers_are_named():
    line = describe.constant_numbers(make_trajectories())
    assert line == "constant observation numbers, which are not scaled: 2"
    observations = np.random.default_rng(0).normal(size=(sum(LENGTHS) + TAIL, 2))
    trajectories = make_trajectories(observations=observations.astype(np.float32))
    assert describe.constant_numbers(trajectories) is None


def one_step_of_float32(trajectories):
    """Return the data with observation 2 one step of float32 above 7, once."""
    observations = np.array(trajectories.observations)
    observations[5, 2] = np.nextafter(np.float32(7), np.float32(8))
    rows = len(observations) + TAIL
    padded = np.pad(observations, ((0, rows - len(observations)), (0, 0)), "edge")
    return make_trajectories(observations=padded)


def test_nearly_constant_observation_numbers_are_named_and_not_scaled():
    """Unless it is D4RL's data: its units are CORL's."""
    nearly = one_step_of_float32(make_trajectories())
    line = "constant or nearly constant observation numbers, which are not scaled: 2"
    assert describe.constant_numbers(nearly) == line
    assert describe.constant_numbers(nearly, HOPPER) is None
    config = default_config(max_action=1.0)
    scaled = make_normalizer(config, nearly, HOPPER).state_std
    np.testing.assert_array_equal(scaled, nearly.state_std)
    assert scaled[2] < 2e-6
    used = make_normalizer(config, nearly, None).state_std
    np.testing.assert_array_equal(used, np.where(np.arange(4) == 2, 1, scaled))
    assert used.dtype == np.float32


def test_counters_too_large_for_float32_keep_their_scale():
    """They vary by a few steps of float32, but by thousands in their units."""
    rows = sum(LENGTHS) + TAIL
    seconds = (1.7e9 + 3 * np.arange(rows)).astype(np.float32)[:, np.newaxis]
    data = make_trajectories(observations=seconds)
    used = make_normalizer(default_config(max_action=1.0), data, None).state_std
    np.testing.assert_array_equal(used, data.state_std)
    assert data.nearly_constant.all()
    assert used[0] > 30


def test_numbers_in_tiny_units_and_actions_beside_outliers_are_warnings():
    rng, rows = np.random.default_rng(0), 5000
    observations = rng.normal(size=(rows + TAIL, 2)).astype(np.float32)
    observations[:, 1] *= 1e-8
    actions = rng.uniform(-1, 1, (rows + TAIL, 3)).astype(np.float32)
    actions[7, 2] = -1000
    data = make_trajectories([rows], observations=observations, actions=actions)
    config = default_config(max_action=1.0)
    units = make_normalizer(config, data, None)
    tiny, outlier = describe.unit_warnings(data, units, 1.0)
    assert tiny.startswith("observation numbers 1 have a standard deviation below 1e-4")
    assert "action numbers 2 have" in outlier
    assert "in -1e+03 to 1, with a value of -1e+03; remove outliers" in outlier
    plain = make_trajectories()
    units = make_normalizer(config, plain, None)
    assert describe.unit_warnings(plain, units, 1.0) == []


def test_actions_that_float32_cannot_scale_are_refused():
    actions = np.ones((sum(LENGTHS) + TAIL, 3), np.float32)
    actions[::2, 1] = -1
    actions[:, 2] = 1e-38 * actions[:, 1]
    data = make_trajectories(actions=actions)
    message = "made.hdf5: action numbers 2 vary less than float32 can represent; use"
    with pytest.raises(UserError, match=message):
        make_normalizer(default_config(max_action=1.0), data, None)


@pytest.mark.parametrize(
    ("lengths", "line"),
    [
        ([9], "9 transitions in one trajectory"),
        ([2000, 2000], "4,000 transitions in 2 trajectories of 2,000 steps each"),
        ([1, 1], "2 transitions in 2 trajectories of 1 step each"),
        ([5, 8, 9], "22 transitions in 3 trajectories of 5 to 9 steps (median 8)"),
        (LENGTHS, "trajectories of 1 to 40 steps (median 7; 40% have one step)"),
    ],
)
def test_lengths_summary(lengths, line):
    assert describe.lengths_summary(make_trajectories(lengths)).endswith(line)


def test_facts():
    text = summary(make_trajectories())
    kept = make_trajectories().rewards
    assert "made.hdf5" in text
    assert "ab" * 32 in text
    for fact in (
        r"^transitions +61$",
        r"^trajectories +5; of one step: 2 \(40%\)$",
        r"^dropped tail +3 rows$",
        rf"^rewards +{np.count_nonzero(kept)} \(\d\d(\.\d)?%\) nonzero$",
        r"^actions +3 numbers from -0\.\d+ to 0\.\d+$",
        r"^ +constant: 2$",
    ):
        assert re.search(fact, text, re.MULTILINE), fact


def test_distributions_match_a_loop():
    trajectories = make_trajectories()
    returns = [
        sum(trajectories.rewards[start : start + length].tolist())
        for start, length in zip(trajectories.starts, trajectories.lengths, strict=True)
    ]
    text = summary(trajectories)
    assert table(text, "length") == ["1", "1", "7", "12", "40", "12.200", "14.497"]
    quartiles = [*np.quantile(returns, (0, 0.25, 0.5, 0.75, 1))]
    expected = [*quartiles, np.mean(returns), np.std(returns)]
    shown = [float(cell) for cell in table(text, "return")]
    np.testing.assert_allclose(shown, expected, atol=6e-4)
    rewards = trajectories.rewards.tolist()
    expected = [min(rewards), max(rewards), np.mean(rewards), np.std(rewards)]
    shown = [float(cell) for cell in table(text, "reward")]
    np.testing.assert_allclose(shown, expected, atol=6e-4)


def test_each_observation_dimension_has_a_row():
    trajectories = make_trajectories()
    text = summary(trajectories)
    for number, column in enumerate(trajectories.observations.T):
        expected = [f(column) for f in (np.min, np.max, np.mean, np.std)]
        shown = [float(cell) for cell in table(text, f"{number}")]
        np.testing.assert_allclose(shown, expected, atol=6e-4)


def test_many_observation_dimensions_are_summarised():
    trajectories = make_trajectories(size=51)
    text = summary(trajectories)
    highest = trajectories.observations.max(0)
    shown = [float(cell) for cell in table(text, "max")]
    expected = [highest.min(), np.median(highest), highest.max()]
    np.testing.assert_allclose(shown, expected, atol=6e-4)
    assert text.splitlines()[-1].startswith("std")


def test_environment_provides_scores_and_bounds():
    spec = dataclasses.replace(HOPPER, action_low=-0.5, action_high=0.5)
    actions = np.zeros((sum(LENGTHS) + TAIL, 3), np.float32)
    actions[4, 1] = -0.75
    trajectories = make_trajectories(actions=actions)
    text = summary(trajectories, spec)
    assert "1 (1.64%) outside the bounds -0.5 to 0.5, up to -0.750" in text
    assert "outside" not in summary(trajectories)  # there are no bounds
    assert "-20.272 scores 0, 3,234.3 scores 100" in text
    scores = normalized_score(spec, trajectories.episode_returns)
    shown = [float(cell) for cell in table(text, "normalised")]
    np.testing.assert_allclose(shown[2], np.median(scores), atol=0.06)
    np.testing.assert_allclose(shown[4:6], [scores.max(), scores.mean()], atol=0.06)


def test_trajectories_beyond_the_time_limit_are_counted():
    spec = dataclasses.replace(HOPPER, max_episode_steps=11)
    text = " ".join(summary(make_trajectories(), spec).split())
    assert "longer than the time limit of 11 steps: 1 (20%); are timeouts" in text
    assert "longer than" not in summary(make_trajectories(), HOPPER)


def test_scores_need_reference_scores():
    spec = dataclasses.replace(HOPPER, ref_min=None, ref_max=None)
    assert "normalised" not in summary(make_trajectories(), spec)
    assert "normalised" not in summary(make_trajectories())


@pytest.mark.parametrize("size", [4, 300])
def test_lines_fit_80_columns(size):
    random = np.random.default_rng(0)
    rows = sum(LENGTHS) + TAIL
    observations = -99_999.4 * random.random((rows, size), np.float32)
    observations[:, ::3] = 0  # constant, too many for one line
    rewards = -9_999.4 * random.random(rows, np.float32)
    text = summary(
        make_trajectories(observations=observations, rewards=rewards), HOPPER
    )
    assert max(map(len, text.splitlines())) <= 80
    last_constant = (size - 1) // 3 * 3
    assert re.search(rf"\b{last_constant}$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.0, "0"),
        (1000, "1,000"),
        (-2.0, "-2"),
        (0.5, "0.500"),
        (99.5, "99.500"),
        (393.25, "393.2"),
        (12345.6, "12,346"),
        (1.5e6, "1.5e+06"),
        (2e6, "2.0e+06"),
        (-9.1e-5, "-9.1e-05"),
    ],
)
def test_number_format(value, text):
    assert describe._number(value) == text


def test_choices_that_are_numbered_from_one_are_a_warning(raw):
    for first in (0, 1):
        actions = np.arange(len(raw.rewards)) % 2 + first
        data = Trajectories.from_raw(raw._replace(actions=actions), source="test")
        units = make_normalizer(default_config(max_action=1.0), data, None)
        warnings = describe.unit_warnings(data, units, 1.0)
        assert [line[:21] for line in warnings] == ["choice 0 never occurs"] * first
        described = describe_dataset(Dataset(data, "test", "0" * 64), None)
        assert ("do they count from 1?" in described) == first
