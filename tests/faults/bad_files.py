"""Functions that write files which are corrupt, inconsistent or something else."""

import os
import zipfile

import h5py
import numpy as np
import pytest
from refusals import CORRUPT, INCOMPLETE, ROWS, arrays, to_hdf5, to_npz


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
    """Change the checksum of a member in the archive."""
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
    """Keep the right name in the local header."""
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


def announcing(shape, kept=1000):
    """Return a function that writes an archive with a wrong shape in its headers."""

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
    """Return a function that writes a file with announced, but unwritten rows."""

    def make(path):
        with h5py.File(path, "w") as file:
            for key, array in arrays().items():
                shape = (rows, *array.shape[1:])
                chunks = (10, *array.shape[1:]) if chunked else None
                file.create_dataset(key, shape, array.dtype, chunks=chunks)
        return path

    return make


def half_written(path):
    """Write a file like a recording that was killed."""
    with h5py.File(path, "w") as file:
        for key, array in arrays().items():
            chunks = (10, *array.shape[1:])
            made = file.create_dataset(key, array.shape, array.dtype, chunks=chunks)
            made[: ROWS // 2] = array[: ROWS // 2]
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


ELSEWHERE = ("actions is stored in another file", "copy it into this one")

FILES = {  # name -> function that writes the file, parts of the error
    "a pickle": (pickled, ("actions has dtype object, expected numbers",)),
    "flipped content": (flipped_content, CORRUPT),
    "flipped header": (flipped_header, CORRUPT),
    "flipped directory": (flipped_directory, CORRUPT),
    "renamed in the directory": (renamed_in_the_directory, CORRUPT),
    "encrypted": (encrypted, CORRUPT),
    "huge shape.npz": (
        announcing((10**12, 2)),
        ("announces shape (1",),
    ),
    "negative shape.npz": (
        announcing((-60, -2), 480),
        ("shape is (-60, 3)",),
    ),
    "virtual": (virtual, ELSEWHERE),
    "external link": (external_link, ELSEWHERE),
    "external storage": (external_storage, ELSEWHERE),
    "huge shape.hdf5": (never_written(10**12), INCOMPLETE),
    "huge shape, one piece.hdf5": (never_written(10**12, chunked=False), INCOMPLETE),
    "never written": (never_written(ROWS), INCOMPLETE),
    "half written": (half_written, INCOMPLETE),
    "unknown filter": (unknown_filter, ("is not installed", "rewrite it with gzip")),
    "damaged chunk": (damaged_chunk, CORRUPT),
    "a group": (a_group, ("actions missing", "a dataset needs")),
    "a web page": (a_web_page, CORRUPT),
    "a folder": (a_folder, ("is a folder, expected an HDF5 or .npz file",)),
    "a fifo": (a_fifo, ("is not a regular file, expected an HDF5",)),
    "a loop of links": (a_loop_of_links, ("no such file",)),
    "unreadable": (unreadable, ("Permission denied",)),
}
