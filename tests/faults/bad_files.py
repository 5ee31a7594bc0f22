"""Files that are damaged, absurd or of something else, each made by a function."""

import os
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from refusals import DAMAGED, MEMORY, ROWS, UNWRITTEN, arrays, to_hdf5, to_npz


def pickled(path):
    data = arrays(actions=np.array([{"a": 1}] * ROWS, object))
    np.savez(path.with_suffix(".npz"), allow_pickle=True, **data)
    return path.with_suffix(".npz")


def flipped_content(path):
    """Flip a byte in the middle of the compressed actions."""
    to_npz(path, arrays())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("actions.npy")
    content = bytearray(path.read_bytes())
    content[member.header_offset + member.compress_size // 2] ^= 0x40
    path.write_bytes(content)
    return path


def flipped_header(path):
    """Spoil the checksum that an array's header in the archive tells."""
    to_npz(path, arrays())
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 16] ^= 0x40
    path.write_bytes(content)
    return path


def flipped_directory(path):
    to_npz(path, arrays())
    content = path.read_bytes()
    start = content.rindex(b"PK\x01\x02")
    path.write_bytes(content[:start] + b"PK\x01\x03" + content[start + 4 :])
    return path


def renamed_in_the_directory(path):
    """The local header still has the right name."""
    to_npz(path, arrays())
    content = path.read_bytes()
    start = content.rindex(b"timeouts.npy")
    path.write_bytes(content[:start] + b"tameouts" + content[start + 8 :])
    return path


def encrypted(path):
    to_npz(path, arrays())
    content = bytearray(path.read_bytes())
    for signature, offset in (b"PK\x03\x04", 6), (b"PK\x01\x02", 8):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    return path


def unknown_method(path):
    to_npz(path, arrays())
    content = bytearray(path.read_bytes())
    for signature, offset in (b"PK\x03\x04", 8), (b"PK\x01\x02", 10):
        content[content.index(signature) + offset] = 97
    path.write_bytes(content)
    return path


def announcing(shape, kept=1000):
    """Return what writes an archive whose arrays announce rows, and keep some bytes."""

    def make(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for key, array in arrays().items():
                announced = shape if key == "actions" else (shape[0], *array.shape[1:])
                header = {"descr": "<f4", "fortran_order": False, "shape": announced}
                with archive.open(f"{key}.npy", "w") as file:
                    np.lib.format.write_array_header_1_0(file, header)
                    file.write(bytes(kept))
        return path

    return make


def huge_header(path):
    """Announce a .npy header of 4 GB, and give 1 GB of it, in 1 MB."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("actions.npy", "w", force_zip64=True) as file,
    ):
        file.write(b"\x93NUMPY\x02\x00\xff\xff\xff\xff")
        for _ in range(1 << 10):
            file.write(b" " * (1 << 20))
    return path


def virtual(path):
    to_hdf5(path.with_name("source.hdf5"), arrays())
    layout = h5py.VirtualLayout((ROWS, 2), "f4")
    layout[:] = h5py.VirtualSource(path.with_name("source.hdf5"), "actions", (ROWS, 2))
    to_hdf5(path, arrays(actions=None))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("actions", layout)
    return path


def external_link(path):
    to_hdf5(path.with_name("source.hdf5"), arrays())
    to_hdf5(path, arrays(actions=None))
    with h5py.File(path, "a") as file:
        file["actions"] = h5py.ExternalLink("source.hdf5", "/actions")
    return path


def external_storage(path):
    to_hdf5(path, arrays(actions=None))
    outside = [(str(path.with_name("outside.bin")), 0, h5py.h5f.UNLIMITED)]
    with h5py.File(path, "a") as file:
        file.create_dataset("actions", data=arrays()["actions"], external=outside)
    return path


def never_written(rows, chunked=True):
    """Return what writes a file that announces rows and has not one."""

    def make(path):
        with h5py.File(path, "w") as file:
            for key, array in arrays().items():
                shape = (rows, *array.shape[1:])
                chunks = (10, *array.shape[1:]) if chunked else None
                file.create_dataset(key, shape, array.dtype, chunks=chunks)
        return path

    return make


def half_written(path):
    """As a recording that was killed leaves it."""
    with h5py.File(path, "w") as file:
        for key, array in arrays().items():
            chunks = (10, *array.shape[1:])
            made = file.create_dataset(key, array.shape, array.dtype, chunks=chunks)
            made[: ROWS // 2] = array[: ROWS // 2]
    return path


def bomb(path):
    """Write some 100 kB that unpack to more rows than the memory has bytes."""
    chunk = 1 << 26
    packed = zlib.compress(bytes(chunk))
    rows = MEMORY // chunk * chunk
    with h5py.File(path, "w") as file:
        for key, array in arrays().items():
            shape, chunks = (rows, *(1 for _ in array.shape[1:])), (chunk,)
            made = file.create_dataset(
                key, shape, "i1", chunks=chunks + shape[1:], compression="gzip"
            )
            for start in range(0, rows, chunk):
                made.id.write_direct_chunk((start, *(0 for _ in shape[1:])), packed)
    return path


def unknown_filter(path):
    to_hdf5(path, arrays(), compression="gzip")
    content, number = path.read_bytes(), (1).to_bytes(2, "little")
    named = number + (8).to_bytes(2, "little") + (1).to_bytes(2, "little")
    assert named in content
    other = (32015).to_bytes(2, "little")
    path.write_bytes(content.replace(named, other + named[2:]))
    return path


def damaged_chunk(path):
    to_hdf5(path, arrays(), compression="gzip")
    with h5py.File(path) as file:
        chunk = file["actions"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 0x40
    path.write_bytes(content)
    return path


def a_group(path):
    to_hdf5(path, arrays(actions=None))
    with h5py.File(path, "a") as file:
        file.create_group("actions")
    return path


def a_web_page(path):
    path.write_text("<!DOCTYPE html><title>404</title>\n" * 100)
    return path


def a_folder(path):
    path.mkdir()
    return path


def a_fifo(path):
    os.mkfifo(path)
    return path


def a_loop_of_links(path):
    other = path.with_name("other")
    path.symlink_to(other)
    other.symlink_to(path)
    return path


def unreadable(path):
    if os.geteuid() == 0:
        pytest.skip("root may read anything")
    to_hdf5(path, arrays()).chmod(0)
    return path


FILES = {  # what writes it -> what the line says
    "a pickle": (pickled, ("actions holds object, numbers are needed",)),
    "flipped content": (flipped_content, DAMAGED),
    "flipped header": (flipped_header, DAMAGED),
    "flipped directory": (flipped_directory, DAMAGED),
    "renamed in the directory": (renamed_in_the_directory, DAMAGED),
    "encrypted": (encrypted, DAMAGED),
    "unknown method": (unknown_method, DAMAGED),
    "huge shape.npz": (announcing((10**12, 2)), ("announces the shape (1", "get it")),
    "negative shape.npz": (announcing((-60, -2), 480), ("shape (-60, 3)", "get it")),
    "huge .npy header": (huge_header, DAMAGED),
    "virtual": (virtual, ("/actions lies in other files", "copy it here")),
    "external link": (external_link, ("actions lies in other files", "copy it here")),
    "external storage": (external_storage, ("lies in other files", "copy it here")),
    "huge shape.hdf5": (never_written(10**12), UNWRITTEN),
    "huge shape, one piece.hdf5": (never_written(10**12, chunked=False), UNWRITTEN),
    "never written": (never_written(ROWS), UNWRITTEN),
    "half written": (half_written, UNWRITTEN),
    "a bomb": (bomb, ("GB of memory, and this machine has", "split the data")),
    "unknown filter": (unknown_filter, ("is not installed", "write it with gzip")),
    "damaged chunk": (damaged_chunk, DAMAGED),
    "a group": (a_group, ("lacks actions", "a dataset needs")),
    "a web page": (a_web_page, DAMAGED),
    "a folder": (a_folder, ("is a folder; an HDF5 or .npz file is needed",)),
    "a fifo": (a_fifo, ("is no ordinary file; an HDF5 or .npz file is needed",)),
    "a loop of links": (a_loop_of_links, ("is a link to what is not there", "mend")),
    "unreadable": (unreadable, ("Permission denied",)),
}
