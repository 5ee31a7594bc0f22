"""HDF5 files, as D4RL has them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dt_jax.data.schema import BLOCK_ROWS, Column
from dt_jax.errors import UserError


class Hdf5Column:
    """A dataset of an HDF5 file that is open."""

    def __init__(self, dataset: h5py.Dataset, path: Path):
        self.shape: tuple[int, ...] = dataset.shape or ()
        self.dtype = dataset.dtype
        self._dataset = dataset
        self._path = path

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order, in whole chunks."""
        self._check_is_here()
        chunk = self._dataset.chunks[0] if self._dataset.chunks else 1
        rows = -(-BLOCK_ROWS // chunk) * chunk
        for start in range(0, self.shape[0], rows):
            with _damage_told(self._path):
                block = self._dataset[start : start + rows]
            yield block

    def mapped(self) -> np.ndarray | None:
        """Map the rows, where they lie in the file in one piece and as they are."""
        self._check_is_here()
        offset = self._dataset.id.get_offset()  # None where they are chunked
        if offset is None:
            return None
        return np.memmap(self._path, self.dtype, "r", offset, self.shape)

    def _check_is_here(self) -> None:
        """Refuse what lies in other files: this one's SHA-256 does not hold it."""
        if self._dataset.is_virtual or self._dataset.external:
            name = self._dataset.name
            raise UserError(f"{self._path}: {name} lies in other files; copy it here")


@contextmanager
def hdf5_columns(path: Path) -> Iterator[dict[str, Column]]:
    """Open a file; its arrays by their names, "infos/qpos" for one in a group.

    Raises:
      UserError: it is no HDF5 file, or a damaged one; also while it is read.
    """
    with _opened(path) as file:
        found: dict[str, Column] = {}

        def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = Hdf5Column(item, path)

        with _damage_told(path):
            file.visititems(add)
        yield found


def hdf5_attributes(path: Path) -> dict[str, Any]:
    """Return what is noted at a file's top level; see `hdf5_columns` for errors."""
    with _opened(path) as file, _damage_told(path):
        return dict(file.attrs)


def _opened(path: Path) -> h5py.File:
    with _damage_told(path):
        # Whole chunks are read, each once: to keep some would only take memory.
        return h5py.File(path, "r", rdcc_nbytes=0)


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turn what h5py raises for a damaged file into the one line about it."""
    try:
        yield
    except PermissionError:
        raise
    except (OSError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"{path} is no HDF5 or .npz file, or is damaged; get it again, or write it "
            f"as one of these ({why})"
        ) from None
