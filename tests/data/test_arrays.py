import numpy as np
import pytest

from dt_jax.data import arrays


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_column_statistics_match_numpy(dtype, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_ROWS", 16)  # the last block has 13 rows
    array = np.random.default_rng(1).normal(20, 9, (61, 5)).astype(dtype)
    wide = array.astype(np.float32).astype(np.float64)
    statistics = arrays.column_statistics(array)
    for name, values in zip(statistics._fields, statistics, strict=True):
        np.testing.assert_allclose(values, getattr(wide, name)(0), rtol=1e-12)


def test_column_statistics_are_precise_far_from_zero():
    array = np.float32(1e4) + np.random.default_rng(1).normal(size=(20_000, 1))
    array = array.astype(np.float32)
    statistics = arrays.column_statistics(array)
    expected = array.std(0, dtype=np.float64)
    np.testing.assert_allclose(statistics.std, expected, rtol=1e-9)


def test_only_columns_of_a_single_value_are_constant():
    columns = np.zeros((10_000, 4), np.float32)
    columns[:, 1] = 1234.567
    columns[:, 2] = 0.1
    columns[-1, 2] = np.nextafter(columns[0, 2], np.float32(1))
    columns[0, 3] = 1
    constant = arrays.column_statistics(columns).constant
    assert constant.tolist() == [True, True, False, False]


@pytest.mark.parametrize("shape", [7, (3, 5), (1, 2, 3)])
def test_aligned_arrays_start_at_multiples_of_64_bytes(shape):
    for _ in range(5):
        array = arrays.aligned_empty(shape, np.float32)
        assert array.shape == (shape if isinstance(shape, tuple) else (shape,))
        assert array.dtype == np.float32
        assert array.ctypes.data % 64 == 0


def test_machine_memory_is_plausible():
    assert 1e8 < arrays.machine_memory() < 1e14
