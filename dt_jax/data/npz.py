"""NumPy's .npz archives, read without pickle and without unzipping them as a whole."""

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np

from dt_jax.data.schema import BLOCK_ROWS, Column
from dt_jax.errors import UserError


class NpzColumn:
    """An array of an archive that is open."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path):
        with _damage_told(path), archive.open(member) as stream:
            self.shape, by_column, self.dtype = _read_header(stream)
            self._header_size = stream.tell()
        self._order: Literal["C", "F"] = "F" if by_column else "C"
        self._archive, self._member, self._path = archive, member, path

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order; an array in Fortran's order at once."""
        at_once = BLOCK_ROWS if self._order == "C" else self.shape[0]
        with _damage_told(self._path):
            stream = self._archive.open(self._member)
            stream.read(self._header_size)
        with stream:
            for start in range(0, self.shape[0], at_once):
                yield self._take(stream, min(at_once, self.shape[0] - start))
            with _damage_told(self._path):
                stream.read(1)  # the archive's checksum is looked at at the end

    def _take(self, stream: IO[bytes], rows: int) -> np.ndarray:
        shape = (rows, *self.shape[1:])
        with _damage_told(self._path):
            content = stream.read(math.prod(shape) * self.dtype.itemsize)
            return np.frombuffer(content, self.dtype).reshape(shape, order=self._order)

    def mapped(self) -> np.ndarray | None:
        """Map the rows, where the archive is `np.savez`'s, which compresses nothing."""
        if self._member.compress_type != zipfile.ZIP_STORED:
            return None
        with self._path.open("rb") as file:  # the member's own header may be longer
            file.seek(self._member.header_offset)
            name, extra = struct.unpack("<26xHH", file.read(30))
        offset = self._member.header_offset + 30 + name + extra + self._header_size
        return np.memmap(self._path, self.dtype, "r", offset, self.shape, self._order)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether in Fortran's order, and dtype of a .npy."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


@contextmanager
def npz_columns(path: Path) -> Iterator[dict[str, Column]]:
    """Open an archive; its arrays by their names.

    Raises:
      UserError: it is no such archive, or a damaged one; also while it is read.
    """
    with _damage_told(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield {
            member.filename.removesuffix(".npy"): NpzColumn(archive, member, path)
            for member in archive.infolist()
            if member.filename.endswith(".npy")
        }


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turn what zipfile and NumPy raise for a damaged file into the one line."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise UserError(
            f"{path} is no HDF5 or .npz file, or is damaged; get it again, or write it "
            f"as one of these ({error})"
        ) from None
