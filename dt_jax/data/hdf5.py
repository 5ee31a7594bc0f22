"""HDF5 files, as D4RL has them."""

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dt_jax.data.limits import MOST_DEFLATED, check_memory
from dt_jax.data.schema import FLAGS, NUMBERS, Column, damage_told, rows_at_once
from dt_jax.utils.errors import UserError

_ALWAYS_FINE = 1 << 20  # bytes
_UNPACKED_UNSEEN = 1 << 28  # bytes of a chunk
_CHECKSUM = 4  # bytes, which may be packed with a chunk


class Hdf5Column:
    """A dataset of an HDF5 file that is open."""

    def __init__(self, dataset: h5py.Dataset, path: Path):
        self._dataset = dataset
        self._path = path
        self._name = f"{path}: {dataset.name.removeprefix('/')}"

    @property
    def shape(self) -> tuple[int, ...]:
        """As in the file."""
        with damage_told(self._path):
            return self._dataset.shape or ()

    @property
    def dtype(self) -> np.dtype:
        """As in the file."""
        with damage_told(self._path):
            return self._dataset.dtype

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order, in whole chunks."""
        self._check_is_here()
        with damage_told(self._path):
            written = self._dataset.id.get_create_plist()
            _check_packing(self._dataset.id, written)
        chunk = self._dataset.chunks[0] if self._dataset.chunks else 1
        rows = -(-rows_at_once(self) // chunk) * chunk
        size = min(rows, self.shape[0]) * math.prod(self.shape[1:])
        check_memory(size * self.dtype.itemsize, f"{self._name}, a chunk of it,")
        for start in range(0, self.shape[0], rows):
            with damage_told(self._path):
                block = self._dataset[start : start + rows]
            yield block

    def check_whole(self, gaps: bool) -> None:
        """Refuse rows that were announced and not written, and unknown compression.

        HDF5 reads what was never written as zeros, any number of them.
        """
        self._check_is_here()
        with damage_told(self._path):
            unknown = [
                f"{name or 'a filter'} ({code})"
                for code, name in self._filters().items()
                if not h5py.h5z.filter_avail(code)
            ]
            if self._dataset.chunks:
                announced, stored = self._check_chunks()
            else:
                announced = self._dataset.nbytes
                stored = self._dataset.id.get_storage_size()
        if unknown:
            raise UserError(
                f"{self._name} is compressed by {', '.join(unknown)}, which is not "
                "installed; write it with gzip"
            )
        if stored > announced or (stored < announced and not gaps):
            raise UserError(
                f"{self._name} has shape {self.shape}, and that is not what was "
                "written: get the file again, or record it to the end"
            )

    def mapped(self) -> np.ndarray | None:
        """Map the rows, where they lie in the file in one piece and as they are."""
        self._check_is_here()
        with damage_told(self._path):
            offset = self._dataset.id.get_offset()  # None where they are chunked
            if offset is None:
                return None
            return np.memmap(self._path, self.dtype, "r", offset, self.shape)

    def _check_chunks(self) -> tuple[int, int]:
        """Return how many chunks are announced and stored.

        Raises:
          ValueError: a chunk has a size with which HDF5 would crash, or unpack any
            number of bytes.
        """
        chunk = self._dataset.chunks
        most = 1.01 * math.prod(chunk) * self.dtype.itemsize + 1024
        least = 5 if h5py.h5z.FILTER_FLETCHER32 in self._filters() else 1
        stored, end = 0, self._path.stat().st_size

        def look(info: h5py.h5d.StoreInfo) -> None:
            nonlocal stored
            stored += 1
            if not least <= info.size <= most or info.byte_offset + info.size > end:
                raise ValueError(f"a chunk of {info.size} bytes")

        self._dataset.id.chunk_iter(look)
        counts = (-(-n // c) for n, c in zip(self.shape, chunk, strict=True))
        return math.prod(counts), stored

    def _filters(self) -> dict[int, str]:
        """Return the names of what compresses, or checks, a chunk by their numbers."""
        written = self._dataset.id.get_create_plist()
        filters = (written.get_filter(i) for i in range(written.get_nfilters()))
        return {code: name.decode(errors="replace") for code, _, _, name in filters}

    def _check_is_here(self) -> None:
        """Refuse what lies in other files: this one's SHA-256 does not hold it."""
        with damage_told(self._path):
            elsewhere = self._dataset.is_virtual or self._dataset.external
        if elsewhere:
            raise _lies_elsewhere(self._path, self._dataset.name)


@contextmanager
def hdf5_columns(path: Path) -> Iterator[dict[str, Column]]:
    """Open a file; its arrays by their names, "infos/qpos" for one in a group.

    Raises:
      UserError: it is no HDF5 file, or a damaged one; also while it is read.
    """
    with _opened(path) as file:
        found: dict[str, Column] = {}

        def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset) and isinstance(name, str):
                found[name] = Hdf5Column(item, path)

        with damage_told(path):
            file.visititems(add)
            for key in (*NUMBERS, *FLAGS):  # links are not visited
                if isinstance(file.get(key, getlink=True), h5py.ExternalLink):
                    raise _lies_elsewhere(path, key)
        yield found


def hdf5_attribute(path: Path, name: str) -> Any:
    """Return the one thing noted under a name at a file's top level; None if none is.

    Raises:
      UserError: as of `hdf5_columns`.
    """
    with _opened(path) as file, damage_told(path):
        noted = name in file.attrs and file.attrs.get_id(name).shape == ()
        return file.attrs[name] if noted else None


def check_stored(path: Path) -> None:
    """Refuse a file with an array of far more bytes than it stores, or of other files.

    For readers that take whole arrays into memory. It opens each, at a lower level than
    `hdf5_columns`, which would take five times as long.

    Raises:
      ValueError: there is such an array; or whatever h5py raises for a damaged file.
    """

    def leads_away(name: bytes, about: h5py.h5l.LinkInfo) -> bytes | None:
        return name if about.type == h5py.h5l.TYPE_EXTERNAL else None

    def look(name: bytes, about: h5py.h5o.ObjInfo) -> None:
        if about.type != h5py.h5o.TYPE_DATASET:
            return
        array = h5py.h5d.open(file.id, name)
        text, written = name.decode(errors="replace"), array.get_create_plist()
        virtual = written.get_layout() == h5py.h5d.VIRTUAL
        if virtual or written.get_external_count():
            raise ValueError(f"{text} lies in other files")
        count = array.get_space().get_simple_extent_npoints()
        size, stored = count * array.get_type().get_size(), array.get_storage_size()
        if size > MOST_DEFLATED * stored + _ALWAYS_FINE:
            raise ValueError(f"{text} announces {size:,} bytes and stores {stored:,}")
        _check_packing(array, written)

    with h5py.File(path, "r") as file:
        if link := file.id.links.visit(leads_away, info=True):
            raise ValueError(f"{link.decode(errors='replace')} lies in other files")
        h5py.h5o.visit(file.id, look, info=True)


def _check_packing(array: h5py.h5d.DatasetID, written: h5py.h5p.PropDCID) -> None:
    """Refuse chunks that would unpack to more than they are: HDF5 does so unasked.

    Args:
      array: to be read.
      written: how it was created.

    Raises:
      ValueError: there is such a chunk.
    """
    filters = [written.get_filter(i)[0] for i in range(written.get_nfilters())]
    if len(filters) > len(set(filters)):
        raise ValueError("an array is compressed more than once")
    if h5py.h5z.FILTER_DEFLATE not in filters:
        return
    if MOST_DEFLATED * array.get_storage_size() <= _UNPACKED_UNSEEN:
        return
    where = filters.index(h5py.h5z.FILTER_DEFLATE)
    large: list[tuple[int, ...]] = []

    def look(chunk: h5py.h5d.StoreInfo) -> None:
        left_out = chunk.filter_mask >> where & 1  # as it could not be packed
        if MOST_DEFLATED * chunk.size > _UNPACKED_UNSEEN and not left_out:
            large.append(chunk.chunk_offset)

    array.chunk_iter(look)
    size = math.prod(written.get_chunk()) * array.get_type().get_size() + _CHECKSUM
    for offset in large:
        _, packed = array.read_direct_chunk(offset)
        if len(zlib.decompressobj().decompress(packed, size + 1)) > size:
            raise ValueError(f"the chunk at {offset} unpacks to more than it is")


def _opened(path: Path) -> h5py.File:
    with damage_told(path):
        # Whole chunks are read, each once: to keep some would only take memory.
        return h5py.File(path, "r", rdcc_nbytes=0)


def _lies_elsewhere(path: Path, name: str) -> UserError:
    return UserError(f"{path}: {name} lies in other files; copy it here")
