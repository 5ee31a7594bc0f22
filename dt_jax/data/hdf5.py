"""HDF5 files, as D4RL has them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dt_jax.data.limits import check_memory
from dt_jax.data.schema import FLAGS, NUMBERS, Column, damage_told, rows_at_once
from dt_jax.errors import UserError

_MOST_PACKED = 1032  # bytes that gzip can put into one
_ALWAYS_FINE = 1 << 20  # bytes


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
        chunk = self._dataset.chunks[0] if self._dataset.chunks else 1
        rows = -(-rows_at_once(self) // chunk) * chunk
        size = min(rows, self.shape[0]) * math.prod(self.shape[1:])
        check_memory(size * self.dtype.itemsize, f"{self._name}, a chunk of it,")
        for start in range(0, self.shape[0], rows):
            with damage_told(self._path):
                block = self._dataset[start : start + rows]
            yield block

    def check_whole(self) -> None:
        """Refuse rows that were announced and not written, and unknown compression.

        HDF5 reads what was never written as zeros, any number of them.
        """
        self._check_is_here()
        with damage_told(self._path):
            needed, stored, size = self._announced_and_stored()
            filters = self._unknown_filters()
        if filters:
            raise UserError(
                f"{self._name} is compressed by {filters}, which is not installed; "
                "write it with gzip"
            )
        if stored != needed or size > self._path.stat().st_size:
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

    def _announced_and_stored(self) -> tuple[int, int, int]:
        """Return chunks, or else bytes, as announced and as stored; stored bytes."""
        size = self._dataset.id.get_storage_size()
        if chunks := self._dataset.chunks:
            counts = (-(-n // c) for n, c in zip(self.shape, chunks, strict=True))
            return math.prod(counts), self._dataset.id.get_num_chunks(), size
        return self._dataset.nbytes, size, size

    def _unknown_filters(self) -> str:
        written = self._dataset.id.get_create_plist()
        filters = [written.get_filter(i) for i in range(written.get_nfilters())]
        return ", ".join(
            f"{name.decode(errors='replace') or 'a filter'} ({code})"
            for code, _, _, name in filters
            if not h5py.h5z.filter_avail(code)
        )

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
    """Return what is noted under a name at a file's top level; None if nothing is.

    Raises:
      UserError: as of `hdf5_columns`.
    """
    with _opened(path) as file, damage_told(path):
        return file.attrs.get(name)


def check_stored(path: Path) -> None:
    """Refuse a file in which an array announces far more bytes than it stores.

    For readers that take whole arrays into memory. It opens each, at a lower level than
    `hdf5_columns`, which would take five times as long.

    Raises:
      ValueError: there is such an array; or whatever h5py raises for a damaged file.
    """

    def look(name: bytes, about: h5py.h5o.ObjInfo) -> None:
        if about.type != h5py.h5o.TYPE_DATASET:
            return
        array = h5py.h5d.open(file.id, name)
        count = array.get_space().get_simple_extent_npoints()
        size, stored = count * array.get_type().get_size(), array.get_storage_size()
        if size > _MOST_PACKED * stored + _ALWAYS_FINE:
            text = name.decode(errors="replace")
            raise ValueError(f"{text} announces {size:,} bytes and stores {stored:,}")

    with h5py.File(path, "r") as file:
        h5py.h5o.visit(file.id, look, info=True)


def _opened(path: Path) -> h5py.File:
    with damage_told(path):
        # Whole chunks are read, each once: to keep some would only take memory.
        return h5py.File(path, "r", rdcc_nbytes=0)


def _lies_elsewhere(path: Path, name: str) -> UserError:
    return UserError(f"{path}: {name} lies in other files; copy it here")
