import zipfile

import numpy as np
import pytest

from dt_jax.data.arrays import BLOCK_ROWS
from dt_jax.data.d4rl import read_d4rl
from dt_jax.data.npz import npz_columns
from dt_jax.utils.errors import UserError


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "i2", "?"])
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_blocks_and_memmap_equal_the_array(tmp_path, write, dtype, order):
    rng, rows = np.random.default_rng(0), 2 * BLOCK_ROWS + 7
    array = np.asarray(rng.integers(0, 2, (rows, 3)), dtype, order=order)
    path = tmp_path / "data.npz"
    # Two members for an offset, and a long name for a longer header in the archive.
    write(path, first=np.arange(5), **{"a" * 300: array})
    with npz_columns(path) as columns:
        column = columns["a" * 300]
        assert (column.shape, column.dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(np.concatenate(list(column.blocks())), array)
        mapped = column.memmap()
        if write is np.savez_compressed:
            assert mapped is None
        else:
            np.testing.assert_array_equal(mapped, array, strict=True)
            assert not mapped.flags.writeable


@pytest.mark.parametrize("memory_limit_gb", [None, 0])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("shape", [(-71, -4), (71, 5), (70, 4)])
def test_shape_that_does_not_match_the_content_is_refused(
    raw, tmp_path, shape, method, memory_limit_gb
):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for key, array in raw._asdict().items():
            announced = (shape[0], *array.shape[1:])
            if key == "observations":
                announced = shape
            descr = np.lib.format.dtype_to_descr(array.dtype)
            header = {"descr": descr, "fortran_order": False, "shape": announced}
            with archive.open(f"{key}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, header)
                file.write(array.tobytes())
    message = "is empty" if shape[0] < 0 else "observations announces shape"
    with pytest.raises(UserError, match=message):
        read_d4rl(path, memory_limit_gb=memory_limit_gb)


def test_checksum_of_a_mapped_archive_is_verified(raw, tmp_path):
    path = tmp_path / "data.npz"
    # Larger than what zipfile reads, and verifies, together with the header.
    large = {key: np.concatenate([array] * 50) for key, array in raw._asdict().items()}
    np.savez(path, **large)
    content = bytearray(path.read_bytes())
    content[content.index(large["actions"].tobytes()) + 9] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="Bad CRC-32"):
        read_d4rl(path, memory_limit_gb=0)
