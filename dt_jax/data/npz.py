"""NumPy's .npz archives, read in blocks and without unpickling."""

import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np

from dt_jax.data.arrays import BLOCK_ROWS
from dt_jax.data.schema import Column, corrupt_file_errors


class NpzColumn:
    """One array of an open archive."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path):
        with archive.open(member) as stream:
            self.shape, fortran_order, self.dtype = _read_header(stream)
            self._header_size = stream.tell()
        self._order: Literal["C", "F"] = "F" if fortran_order else "C"
        self._archive, self._member, self._path = archive, member, path

    @property
    def is_complete(self) -> bool:
        """Whether the archive stores as many numbers as the shape announces."""
        size = math.prod(self.shape) * self.dtype.itemsize
        return self._header_size + size == self._member.file_size

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order; an array in Fortran order in one block."""
        rows = self.shape[0] if self._order == "F" else BLOCK_ROWS
        with corrupt_file_errors(self._path), self._archive.open(self._member) as file:
            file.read(self._header_size)
            for start in range(0, self.shape[0], rows):
                shape = min(rows, self.shape[0] - start), *self.shape[1:]
                content = file.read(math.prod(shape) * self.dtype.itemsize)
                block = np.frombuffer(content, self.dtype)
                yield block.reshape(shape, order=self._order)

    def memmap(self) -> np.memmap | None:
        """Map the array; None where it is compressed."""
        if self._member.compress_type != zipfile.ZIP_STORED:
            return None
        with self._archive.open(self._member) as stream:
            while stream.read(1 << 20):
                pass  # zipfile verifies the checksum at the end
        with self._path.open("rb") as file:
            file.seek(self._member.header_offset + 26)
            name_size, extra_size = struct.unpack("<HH", file.read(4))
        offset = self._member.header_offset + 30 + name_size + extra_size
        offset += self._header_size
        return np.memmap(self._path, self.dtype, "r", offset, self.shape, self._order)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return the shape of a .npy, whether it is in Fortran order, and its dtype."""
    if np.lib.format.read_magic(stream) == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


@contextmanager
def npz_columns(path: Path) -> Iterator[dict[str, Column]]:
    """Open an archive and yield its arrays by name."""
    with zipfile.ZipFile(path) as archive:
        yield {
            member.filename.removesuffix(".npy"): NpzColumn(archive, member, path)
            for member in archive.infolist()
            if member.filename.endswith(".npy")
        }
