import zipfile

import numpy as np
import pytest

from dt_jax.data.d4rl import read_d4rl
from dt_jax.data.npz import npz_columns
from dt_jax.data.schema import BLOCK_ROWS
from dt_jax.utils.errors import UserError

WRITERS = {"stored": np.savez, "compressed": np.savez_compressed}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_reads_what_numpy_wrote(raw, tmp_path, write):
    path = tmp_path / "data.npz"
    write(path, other=np.arange(3), **raw._asdict())
    for ours, theirs in zip(read_d4rl(path), raw, strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "i2", "?"])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_blocks_and_mapping_equal_numpys_reading(tmp_path, write, dtype, order):
    rng, rows = np.random.default_rng(0), 2 * BLOCK_ROWS + 7
    array = np.asarray(rng.integers(0, 2, (rows, 3)), dtype, order=order)
    path = tmp_path / "data.npz"
    # Two members, for an offset; a long name, for a longer header in the archive.
    write(path, first=np.arange(5), **{"a" * 300: array})
    with npz_columns(path) as columns:
        column = columns["a" * 300]
        assert (column.shape, column.dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(np.concatenate(list(column.blocks())), array)
        mapped = column.mapped()
        if write is np.savez_compressed:
            assert mapped is None
        else:
            np.testing.assert_array_equal(mapped, array, strict=True)
            assert not mapped.flags.writeable


def test_pickles_are_never_loaded(raw, tmp_path):
    path = tmp_path / "data.npz"
    arrays = raw._asdict() | {"actions": np.array([{"a": 1}] * len(raw.rewards))}
    np.savez(path, allow_pickle=True, **arrays)
    assert_one_line(path, "actions holds object, numbers are needed")


@pytest.mark.parametrize("kept", [0, 100, -100])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_truncated_archive(raw, tmp_path, write, kept):
    path = tmp_path / "data.npz"
    write(path, **raw._asdict())
    path.write_bytes(path.read_bytes()[:kept])
    assert_one_line(path, "or is damaged")


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_damaged_member(raw, tmp_path, write):
    path = tmp_path / "data.npz"
    write(path, **raw._asdict())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("actions.npy")
    content = bytearray(path.read_bytes())
    content[member.header_offset + member.compress_size - 9] ^= 0xFF
    path.write_bytes(content)
    assert_one_line(path, "or is damaged")


def test_a_header_that_promises_more_than_there_is(raw, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **raw._asdict())
    content = path.read_bytes().replace(b"(71, 4)", b"(91, 4)")
    path.write_bytes(content)
    assert_one_line(path, "or is damaged")


@pytest.mark.parametrize("shape", [(10**12, 4), (-71, -4), (71, 5), (70, 4)])
def test_a_shape_that_is_not_the_contents(raw, tmp_path, shape):
    """Whatever the header announces, what the archive holds decides."""
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in raw._asdict().items():
            announced = (shape[0], *array.shape[1:])
            if key == "observations":
                announced = shape
            descr = np.lib.format.dtype_to_descr(array.dtype)
            header = {"descr": descr, "fortran_order": False, "shape": announced}
            with archive.open(f"{key}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, header)
                file.write(array.tobytes())
    assert_one_line(path, f"observations announces the shape {shape}, which is not")


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_sizes_that_the_directory_gets_wrong(raw, tmp_path, write):
    """It could announce as much as a deflated member can't hold."""
    path = tmp_path / "data.npz"
    write(path, **raw._asdict())
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = b"\xff\xff\xff\x7f"  # the size when unpacked
    path.write_bytes(content)
    assert_one_line(path, "observations announces the shape (71, 4), which is not")


def test_a_name_that_only_the_directory_has(raw, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **raw._asdict())
    before, name, after = path.read_bytes().rpartition(b"timeouts.npy")
    path.write_bytes(before + name.replace(b".npy", b".nqy") + after)
    assert_one_line(path, "or is damaged")


def test_a_mapped_archive_has_its_checksum_looked_at(raw, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **raw._asdict())
    content = bytearray(path.read_bytes())
    content[content.index(raw.actions.tobytes()) + 9] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="Bad CRC-32"):
        read_d4rl(path, memory_limit_gb=0)


def test_an_array_in_fortrans_order_that_does_not_fit(raw, tmp_path, monkeypatch):
    path = tmp_path / "data.npz"
    by_column = raw._asdict() | {"actions": np.asfortranarray(raw.actions)}
    np.savez_compressed(path, **by_column)
    monkeypatch.setattr("dt_jax.data.limits.memory", lambda: 500)  # actions take 568
    assert_one_line(path, "actions, to be brought into C's order, would take")


def test_other_members_do_not_matter(raw, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **raw._asdict())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "about the data")
    assert len(read_d4rl(path).rewards) == len(raw.rewards)


def assert_one_line(path, told: str):
    with pytest.raises(UserError) as caught:
        read_d4rl(path)
    message = str(caught.value)
    assert told in message
    assert str(path) in message
    assert "\n" not in message
