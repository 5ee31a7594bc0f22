"""Columns that float32 is too coarse for are refused, in files and in Minari's data."""

import re

import numpy as np
import pytest

from dt_jax.data.arrays import BLOCK_ROWS
from dt_jax.data.d4rl import read_d4rl
from dt_jax.data.rounding import Rounding
from dt_jax.data.schema import RawData
from dt_jax.utils.errors import UserError

ROWS = BLOCK_ROWS + 1000
NOISE = np.random.default_rng(0).standard_normal(ROWS)
STEPS = np.arange(ROWS)

COARSE = {
    "a position": 5.3e6 + 0.3 * NOISE,
    "a gauge": 100 + 1e-3 * NOISE,
    "epoch seconds": 1.7e9 + 0.05 * STEPS,
    "epoch seconds as integers": 1_700_000_000 + STEPS,
    "epoch nanoseconds": 1_700_000_000_000_000_000 + 10**7 * STEPS,
    "nearly constant": np.where(STEPS > ROWS - 3, 5.3e6 + 0.3, 5.3e6 - 0.3),
}
FINE = {
    "D4RL": NOISE,
    "a moderate offset": 5e3 + 2 * NOISE,
    "constant": np.full(ROWS, 5.3e6 + 0.3),
    "constant but for float64's rounding": 1 + 1e-16 * np.sign(NOISE) * (STEPS % 3),
    "jitter": 1 + 1e-6 * NOISE,
    "exact in float32": 2.0**23 + STEPS % 4,
    "small integers": STEPS,
    "wide range": np.exp(20 * NOISE),
}


def data(column, key="observations"):
    """Return one episode whose column 1 of `key` is `column`."""
    rng = np.random.default_rng(1)
    numbers = rng.standard_normal((2, ROWS, 3))
    if column.dtype.kind == "i":
        numbers = (100 * numbers).astype(column.dtype)
    numbers[0][:, 1] = column
    matrices = dict(zip(["observations", "actions"], numbers, strict=True))
    if key == "actions":
        matrices = dict(zip(matrices, reversed(matrices.values()), strict=True))
    matrices["actions"] = matrices["actions"].astype(float)
    timeouts = STEPS == ROWS - 1
    return RawData(**matrices, rewards=NOISE, terminals=0 * STEPS, timeouts=timeouts)


def write_npz(raw, folder):
    np.savez(folder / "data.npz", **raw._asdict())
    return folder / "data.npz"


@pytest.mark.parametrize("memory_limit_gb", [None, 0])
@pytest.mark.parametrize("kind", ["hdf5", "npz"])
@pytest.mark.parametrize("name", COARSE)
def test_columns_that_float32_is_too_coarse_for_are_refused(
    write_hdf5, tmp_path, monkeypatch, name, kind, memory_limit_gb
):
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path / "cache"))
    raw = data(COARSE[name])
    path = write_hdf5(raw) if kind == "hdf5" else write_npz(raw, tmp_path)
    message = f"{path}: observations: column 1 is "
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read_d4rl(path, memory_limit_gb=memory_limit_gb)
    assert "; subtract the offset from the column" in str(error.value)


def test_the_message_has_the_columns_mean_std_and_error(write_hdf5):
    path = write_hdf5(data(COARSE["a position"], "actions"))
    found = r": actions: column 1 is 5\.3e\+06 with a standard deviation of 0\.3, and "
    with pytest.raises(
        UserError, match=found + r"float32 would round it by up to 0\.2"
    ):
        read_d4rl(path)


def test_actions_are_refused_however_small_they_are(write_hdf5):
    """Their range in the data is mapped to the network's; nothing is added to it."""
    column = 5 + 1e-7 * NOISE
    read_d4rl(write_hdf5(data(column)))
    with pytest.raises(UserError, match="actions: column 1 is 5 with a standard dev"):
        read_d4rl(write_hdf5(data(column, "actions")))


@pytest.mark.parametrize("name", FINE)
def test_other_columns_are_read(write_hdf5, name):
    raw = data(FINE[name])
    read = read_d4rl(write_hdf5(raw))
    np.testing.assert_array_equal(read.observations, raw.observations.astype("f4"))


def test_float32_files_hold_what_was_recorded(write_hdf5):
    raw = data(COARSE["a position"].astype(np.float32).astype(float))
    read_d4rl(write_hdf5(raw, observations=raw.observations.astype(np.float32)))


def test_values_beyond_float32_have_their_own_message(write_hdf5):
    path = write_hdf5(data(1e300 * NOISE))
    with pytest.raises(UserError, match="too large for float32, first in row 0"):
        read_d4rl(path)


@pytest.mark.parametrize("split", [1, 100, ROWS])
def test_error_is_compared_with_the_std_of_all_blocks(split):
    """The spacing of float32 at 1,000 is 2^-14, here 1.1e-3 and 0.9e-3 of the std."""
    spacing = np.spacing(np.float32(1000), dtype=np.float32)
    for ratio, refused in (1.1e-3, True), (0.9e-3, False):
        rounding, column = Rounding(), 1000 + spacing / ratio * NOISE / NOISE.std()
        column = np.where(np.abs(column - 1000) < 20, column, 1000)
        for start in range(0, ROWS, split):
            rounding.add(column[start : start + split, np.newaxis])
        if refused:
            with pytest.raises(UserError, match="data: column 0 is 1000"):
                rounding.check("data")
        else:
            rounding.check("data")
