import numpy as np
import pytest

from dt_jax.data import statistics


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_column_statistics_are_numpys(dtype, monkeypatch):
    monkeypatch.setattr(statistics, "BLOCK_ROWS", 16)  # the last block has 13 rows
    array = np.random.default_rng(1).normal(20, 9, (61, 5)).astype(dtype)
    wide = array.astype(np.float32).astype(np.float64)
    found = statistics.column_statistics(array)
    for name, values in zip(found._fields, found, strict=True):
        np.testing.assert_allclose(values, getattr(wide, name)(0), rtol=1e-12)


def test_statistics_lose_no_digits_far_from_zero():
    array = np.float32(1e4) + np.random.default_rng(1).normal(size=(20_000, 1))
    array = array.astype(np.float32)
    found = statistics.column_statistics(array)
    np.testing.assert_allclose(found.std, array.std(0, dtype=np.float64), rtol=1e-9)


def test_mapped_data_is_read_in_place(tmp_path):
    path = tmp_path / "rows.npy"
    array = np.random.default_rng(1).normal(size=(10_000, 3))
    np.save(path, array)
    found = statistics.column_statistics(np.load(path, mmap_mode="r"))
    np.testing.assert_allclose(found.mean, array.mean(0), rtol=1e-6)


def test_constant_is_what_varies_by_rounding_alone():
    columns = np.zeros((1000, 5))
    columns[:, 1] = 1234.5
    columns[:, 2] = 1e4 + 1e-3 * np.random.default_rng(1).normal(size=1000)  # float32's
    columns[:, 3] = np.random.default_rng(1).normal(size=1000)
    columns[0, 4] = 1
    constant = statistics.column_statistics(columns).constant
    assert constant.tolist() == [True, True, True, False, False]
