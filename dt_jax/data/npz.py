"""NumPy's .npz archives, read without pickle and without unzipping them as a whole."""

import io
import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np

from dt_jax.data.limits import MOST_DEFLATED, check_memory
from dt_jax.data.schema import Column, damage_told, rows_at_once
from dt_jax.utils.errors import UserError

_LONGEST_HEADER = 1 << 14  # bytes; NumPy refuses to parse as many
_BOUNDED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED  # others unpack to any size
_PIECE = 1 << 20  # bytes, where content is only checked


class NpzColumn:
    """An array of an archive that is open."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path):
        with damage_told(path), archive.open(member) as stream:
            header = io.BytesIO(stream.read(_LONGEST_HEADER))
            self.shape, by_column, self.dtype = _read_header(header)
        self._header_size = header.tell()
        self._order: Literal["C", "F"] = "F" if by_column else "C"
        self._archive, self._member, self._path = archive, member, path
        self._name = f"{path}: {member.filename.removesuffix('.npy')}"

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order; an array in Fortran's order at once."""
        at_once = rows_at_once(self)
        if self._order == "F":
            check_memory(self._size, f"{self._name}, to be brought into C's order,")
            at_once = self.shape[0]
        with damage_told(self._path):
            stream = self._archive.open(self._member)
            stream.read(self._header_size)
        with stream:
            for start in range(0, self.shape[0], at_once):
                yield self._take(stream, min(at_once, self.shape[0] - start))
            with damage_told(self._path):
                stream.read(1)  # the archive's checksum is looked at at the end

    def check_whole(self, gaps: bool) -> None:
        """Refuse a shape that is not the content's, and content that can't be there."""
        member = self._member
        most = 1 if member.compress_type == zipfile.ZIP_STORED else MOST_DEFLATED
        if (
            min(self.shape) < 0
            or self._header_size + self._size != member.file_size
            or member.compress_size > self._path.stat().st_size
            or member.file_size > most * member.compress_size
        ):
            raise UserError(
                f"{self._name} announces the shape {self.shape}, which is not what the "
                "archive holds: it is damaged; get it again"
            )

    def mapped(self) -> np.ndarray | None:
        """Map the rows, where the archive is `np.savez`'s, which compresses nothing."""
        if self._member.compress_type != zipfile.ZIP_STORED:
            return None
        with damage_told(self._path):
            with self._archive.open(self._member) as stream:
                while stream.read(_PIECE):
                    pass  # the checksum is looked at at the end
            with self._path.open("rb") as file:  # its own header may be longer
                file.seek(self._member.header_offset)
                name, extra = struct.unpack("<26xHH", file.read(30))
            offset = self._member.header_offset + 30 + name + extra + self._header_size
            return np.memmap(
                self._path, self.dtype, "r", offset, self.shape, self._order
            )

    @property
    def _size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def _take(self, stream: IO[bytes], rows: int) -> np.ndarray:
        shape = (rows, *self.shape[1:])
        with damage_told(self._path):
            content = stream.read(math.prod(shape) * self.dtype.itemsize)
            return np.frombuffer(content, self.dtype).reshape(shape, order=self._order)


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
    with damage_told(path):
        archive = zipfile.ZipFile(path)
    with archive:
        with damage_told(path):
            for member in archive.infolist():  # each has its name twice
                if member.compress_type not in _BOUNDED:
                    raise ValueError(f"{member.filename} is not packed as NumPy does")
                archive.open(member).close()
        yield {
            member.filename.removesuffix(".npy"): NpzColumn(archive, member, path)
            for member in archive.infolist()
            if member.filename.endswith(".npy")
        }
