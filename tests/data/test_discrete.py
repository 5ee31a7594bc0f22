"""Discrete actions in files: choices, or one-hot rows."""

import h5py
import numpy as np
import pytest

from dt_jax import datasets, envs
from dt_jax.data.d4rl import read_d4rl
from dt_jax.data.trajectories import Trajectories
from dt_jax.utils.errors import UserError

CARTPOLE = envs.lookup("CartPole-v1")
CHOICES = np.random.default_rng(0).integers(3, size=71)
ONE_HOT = np.eye(3, dtype=np.float32)[CHOICES]


def write(raw, path, actions):
    arrays = raw._asdict() | {"actions": actions}
    if path.suffix == ".npz":
        np.savez(path, **arrays)
        return path
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array
    return path


@pytest.mark.parametrize("name", ["data.hdf5", "data.npz"])
@pytest.mark.parametrize(
    "actions",
    [
        CHOICES,
        CHOICES.astype(np.uint8)[:, None],
        ONE_HOT.astype(np.int32),
        ONE_HOT.astype(bool),
    ],
    ids=["choices", "a column of choices", "one-hot integers", "one-hot bools"],
)
def test_integers_and_bools_are_read_as_one_hot_actions(raw, tmp_path, name, actions):
    path = write(raw, tmp_path / name, actions)
    found = datasets.load_dataset(str(path)).trajectories
    assert found.discrete
    np.testing.assert_array_equal(found.actions, ONE_HOT[: len(found.actions)])
    assert found.actions.dtype == np.float32


def test_floats_are_continuous_without_an_environment(raw, tmp_path):
    path = write(raw, tmp_path / "data.npz", ONE_HOT)
    assert not datasets.load_dataset(str(path)).trajectories.discrete


@pytest.mark.parametrize(
    "actions", [ONE_HOT, CHOICES.astype(np.float32)[:, None]], ids=["rows", "choices"]
)
def test_floats_are_choices_where_the_environment_has_some(raw, tmp_path, actions):
    path = write(raw, tmp_path / "data.npz", actions)
    np.testing.assert_array_equal(read_d4rl(path, num_choices=3).actions, CHOICES)


def test_choices_that_were_never_made_have_columns_too(raw, tmp_path):
    raw = read_d4rl(write(raw, tmp_path / "data.npz", CHOICES), num_choices=5)
    actions = Trajectories.from_raw(raw, source="x", num_choices=5).actions
    assert actions.shape[1] == 5
    assert not actions[:, 3:].any()


def test_memory_mapped_data_has_the_same_actions(raw, tmp_path):
    path = write(raw, tmp_path / "data.npz", CHOICES)
    mapped = read_d4rl(path, memory_limit_gb=0)
    assert isinstance(mapped.observations, np.memmap)
    np.testing.assert_array_equal(mapped.actions, CHOICES)


@pytest.mark.parametrize(
    ("actions", "num_choices", "message"),
    [
        (CHOICES - 1, None, "actions: choices from -1 to 1, expected integers from 0"),
        (CHOICES, 2, "actions: choices from 0 to 2, expected integers from 0 to 1"),
        (CHOICES * 1000, None, "to 999; store continuous actions as floats"),
        (CHOICES / 2, 3, r"actions has shape \(71,\)"),
        (
            CHOICES[:, None] / 2,
            3,
            "actions are continuous, but those of the environment",
        ),
        (ONE_HOT, 2, "actions has 3 columns, but the environment 2 choices"),
        (ONE_HOT.astype(int) * 2, None, "row 0 is not one-hot; discrete actions"),
        (np.ones((71, 2), int), None, "row 0 is not one-hot"),  # MultiDiscrete
    ],
)
def test_actions_that_are_no_choices_are_refused(
    raw, tmp_path, actions, num_choices, message
):
    path = write(raw, tmp_path / "data.npz", actions)
    with pytest.raises(UserError, match=message):
        read_d4rl(path, num_choices=num_choices)


def test_choices_are_refused_for_an_environment_of_continuous_actions(raw, tmp_path):
    path = write(raw, tmp_path / "data.npz", CHOICES)
    pendulum = envs.lookup("Pendulum-v1")
    with pytest.raises(UserError, match="has discrete actions, but those of Pendulum"):
        datasets.read_dataset(pendulum, str(path))
