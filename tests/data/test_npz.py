import zipfile

import numpy as np
import pytest

from dt_jax.data.arrays import BLOCK_ROWS
from dt_jax.data.d4rl import read_d4rl
from dt_jax.data.npz import npz_columns
from dt_jax.utils.errors import UserError

WRITERS = {"stored": np.savez, "compressed": np.savez_compressed}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_read_returns_what_numpy_wrote(raw, tmp_path, write):
    path = tmp_path / "data.npz"
    write(path, other=np.arange(3), **raw._asdict())
    for ours, theirs in zip(read_d4rl(path), raw, strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "i2", "?"])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
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


def test_pickles_are_never_loaded(raw, tmp_path):
    path = tmp_path / "data.npz"
    arrays = raw._asdict() | {"actions": np.array([{"a": 1}] * len(raw.rewards))}
    np.savez(path, allow_pickle=True, **arrays)
    assert_one_line(path, "actions has dtype object, expected numbers")


@pytest.mark.parametrize("kept", [0, 100, -100])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_truncated_archive_is_refused(raw, tmp_path, write, kept):
    path = tmp_path / "data.npz"
    write(path, **raw._asdict())
    path.write_bytes(path.read_bytes()[:kept])
    assert_one_line(path, "corrupt, or not an")


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_corrupt_member_is_reported(raw, tmp_path, write):
    path = tmp_path / "data.npz"
    write(path, **raw._asdict())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("actions.npy")
    content = bytearray(path.read_bytes())
    content[member.header_offset + member.compress_size - 9] ^= 0xFF
    path.write_bytes(content)
    assert_one_line(path, "corrupt, or not an")


def test_member_shorter_than_its_header_announces_is_refused(raw, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **raw._asdict())
    content = path.read_bytes().replace(b"(71, 4)", b"(91, 4)")
    path.write_bytes(content)
    assert_one_line(path, "corrupt, or not an")


@pytest.mark.parametrize("memory_limit_gb", [None, 0])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("shape", [(10**12, 4), (-71, -4), (71, 5), (70, 4)])
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
    message = "is empty" if shape[0] < 0 else f"observations announces shape {shape}"
    assert_one_line(path, message, memory_limit_gb=memory_limit_gb)


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


def test_other_members_are_ignored(raw, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **raw._asdict())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "about the data")
    assert len(read_d4rl(path).rewards) == len(raw.rewards)


def assert_one_line(path, message: str, **options):
    with pytest.raises(UserError) as error:
        read_d4rl(path, **options)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
