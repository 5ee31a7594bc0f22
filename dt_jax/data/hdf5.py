"""HDF5 files, D4RL's format."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from dt_jax.data.arrays import BLOCK_ROWS
from dt_jax.data.schema import KEYS, Column, corrupt_file_errors
from dt_jax.utils.errors import UserError


class Hdf5Column:
    """One dataset of an open HDF5 file."""

    def __init__(self, dataset: h5py.Dataset, path: Path):
        self._dataset, self._path = dataset, path

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the file."""
        return self._dataset.shape or ()

    @property
    def dtype(self) -> np.dtype:
        """The dtype in the file."""
        return self._dataset.dtype

    @property
    def is_complete(self) -> bool:
        """Whether all rows were written; HDF5 reads unwritten ones as zeros."""
        if not self._dataset.chunks:
            return self._dataset.id.get_storage_size() == self._dataset.nbytes
        chunks = zip(self.shape, self._dataset.chunks, strict=True)
        return self._dataset.id.get_num_chunks() == math.prod(
            -(-size // chunk) for size, chunk in chunks
        )

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order, in multiples of whole chunks."""
        chunk = self._dataset.chunks[0] if self._dataset.chunks else 1
        rows = -(-BLOCK_ROWS // chunk) * chunk
        with corrupt_file_errors(self._path):
            self._check_filters()
            for start in range(0, self.shape[0], rows):
                yield self._dataset[start : start + rows]

    def memmap(self) -> np.memmap | None:
        """Map the array; None where it is stored in chunks."""
        offset = self._dataset.id.get_offset()
        if offset is None:
            return None
        return np.memmap(self._path, self.dtype, "r", offset, self.shape)

    def _check_filters(self) -> None:
        created = self._dataset.id.get_create_plist()
        for i in range(created.get_nfilters()):
            code, _, _, name = created.get_filter(i)
            if not h5py.h5z.filter_avail(code):
                raise UserError(
                    f"{self._path}: {self._dataset.name} uses the HDF5 filter {code} "
                    f"({name.decode(errors='replace')}), which is not installed; "
                    "rewrite it with gzip compression"
                )


@contextmanager
def hdf5_columns(path: Path) -> Iterator[dict[str, Column]]:
    """Open a file and yield its top-level arrays by name; a link's name is one too."""
    with open_hdf5(path) as file:
        check_self_contained(file, path)
        items = {name: _open_item(file, name, path) for name in file}
        yield {
            name: Hdf5Column(item, path)
            for name, item in items.items()
            if isinstance(item, h5py.Dataset)
        }


def open_hdf5(path: Path) -> h5py.File:
    """Open a file to read it, also where HDF5 cannot lock it.

    The lock comes first: HDF5 refuses to open one file with and without a lock in one
    process, and a notebook may have it open.

    Raises:
      UserError: another program has not written all of it.
    """
    # Each chunk is read once: a chunk cache would only take memory.
    options = {"mode": "r", "rdcc_nbytes": 0}
    try:
        return h5py.File(path, **options)
    except OSError as error:
        in_use = isinstance(error, BlockingIOError) or "open for write" in str(error)
    try:
        return h5py.File(path, locking=False, **options)
    except OSError as error:
        if not in_use:
            raise
        raise UserError(
            f"{path} is being written by another program, or one was killed while it "
            f"wrote: close the file there, or run h5clear --status {path}"
        ) from error


def _open_item(file: h5py.File, name: str, path: Path) -> object:
    """Return an item; None for a broken link whose name means nothing."""
    try:
        return file[name]
    except (KeyError, RuntimeError) as error:
        if not isinstance(file.get(name, getlink=True), h5py.SoftLink):
            raise  # corrupt
        if name not in KEYS:
            return None
        raise UserError(
            f"{path}: {name} is a broken or circular link; delete it, or replace it "
            "with the array"
        ) from error


def check_self_contained(file: h5py.File, name: object) -> None:
    """Refuse a file with content in other files, which its SHA-256 does not cover.

    It uses h5py's low-level interface, five times as fast for the many small arrays of
    Minari's files.

    Args:
      file: an open file.
      name: the file or dataset, for the error message.

    Raises:
      UserError: an external link, a virtual dataset or external storage was found.
    """

    def is_external_link(key: bytes, info: h5py.h5l.LinkInfo) -> bytes | None:
        return key if info.type == h5py.h5l.TYPE_EXTERNAL else None

    def is_stored_elsewhere(key: bytes, info: h5py.h5o.ObjInfo) -> bytes | None:
        if info.type != h5py.h5o.TYPE_DATASET:
            return None
        created = h5py.h5d.open(file.id, key).get_create_plist()
        virtual = created.get_layout() == h5py.h5d.VIRTUAL
        return key if virtual or created.get_external_count() else None

    elsewhere = file.id.links.visit(is_external_link, info=True)
    elsewhere = elsewhere or h5py.h5o.visit(file.id, is_stored_elsewhere, info=True)
    if elsewhere:
        raise UserError(
            f"{name}: {elsewhere.decode(errors='replace')} is stored in another file, "
            "or a virtual dataset; copy its numbers into an ordinary one in this file"
        )
