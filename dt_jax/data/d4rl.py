"""A file in D4RL's schema -> its transitions, in memory or mapped from the disk."""

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dt_jax.data import schema
from dt_jax.data.cache import (
    alone_with,
    cache_folder,
    is_as_recorded,
    record_sha256,
    sha256_of,
    writing_to_cache,
)
from dt_jax.data.hdf5 import hdf5_attribute, hdf5_columns
from dt_jax.data.limits import check_memory, check_room, memory
from dt_jax.data.npz import npz_columns
from dt_jax.data.schema import Column, RawData
from dt_jax.utils.errors import UserError, printable
from dt_jax.utils.files import replacing


def read_d4rl(
    path: Path,
    *,
    episode_len: int | None = None,
    memory_limit_gb: float | None = None,
    sha256: str | None = None,
) -> RawData:
    """Read an HDF5 file or an .npz archive in D4RL's schema.

    Numbers of any width become float32 on the way. Where they would take more than
    the limit they stay on the disk and are mapped, as wide as they are; what can't be
    mapped, for it is compressed, is first unpacked into the cache folder, once.

    Args:
      path: a file with the keys of `RawData`; any others are left alone. `timeouts`
        may be missing, see `schema.read_timeouts`.
      episode_len: where an episode is cut off, in a file that does not say.
      memory_limit_gb: None for half of the machine's memory.
      sha256: of the file: unpacked data is kept under this name. None computes it.

    Raises:
      UserError: there is no such file, or it is not one of this schema: keys are
        missing, shapes disagree, it is empty, or a number is NaN or infinite.
    """
    with _opened(path) as columns:
        flags = [key for key in schema.FLAGS if key != "timeouts" or key in columns]
        schema.check(columns, (*schema.NUMBERS, *flags), path, "a dataset")
        rows = columns["rewards"].shape[0]
        check_memory(3 * rows, f"{path}: where the episodes of {rows:,} rows end")
        terminals = schema.read_flags(columns["terminals"], f"{path}: terminals")
        timeouts = schema.read_timeouts(columns, terminals, path, episode_len)
        limit = memory() / 2
        if memory_limit_gb is not None:
            limit = min(memory_limit_gb * 1e9, memory())
        needed = schema.size_in_memory(columns)
        if needed <= limit:
            arrays = [schema.read(columns[key], np.float32) for key in schema.NUMBERS]
        else:
            said = (
                f"{path}: {needed / 1e9:.3g} GB of numbers, more than "
                f"{limit / 1e9:.3g} GB: they stay on the disk"
            )
            arrays = _mapped(columns, sha256 or sha256_of(path), said)
        for key, array in zip(schema.NUMBERS, arrays, strict=True):
            schema.check_finite(array, f"{path}: {key}")
    observations, actions, rewards = arrays
    return RawData(observations, actions, rewards.reshape(-1), terminals, timeouts)


def read_states(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the simulator's states, infos/qpos [M, nq] and infos/qvel [M, nv], float64.

    Raises:
      UserError: there is no such file, or it does not keep them as such: see
        `read_d4rl`.
    """
    with _opened(path) as columns:
        # With the rewards, for each row is to have its state.
        schema.check(columns, ("rewards", *schema.STATES), path, "a replay")
        size = 8 * sum(math.prod(columns[key].shape) for key in schema.STATES)
        check_memory(size, f"{path}: the simulator's states")
        qpos, qvel = (schema.read(columns[key], np.float64) for key in schema.STATES)
        for key, array in zip(schema.STATES, (qpos, qvel), strict=True):
            schema.check_finite(array, f"{path}: {key}")
    return qpos, qvel


def read_env_name(path: Path) -> str | None:
    """Return the `env_name` that our collectors note in a file, if it is there."""
    if _is_npz(path):
        return None
    name = hdf5_attribute(path, "env_name")
    return printable(name) if isinstance(name, str) else None


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, Column]]:
    """Open a file of either format."""
    columns = npz_columns if _is_npz(path) else hdf5_columns
    with columns(path) as found:
        yield found


def _is_npz(path: Path) -> bool:
    """Tell the format by the first bytes; what is not .npz is taken for HDF5."""
    if not path.exists():
        raise UserError(_why_missing(path))
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no ordinary file"
        raise UserError(f"{path} is {kind}; an HDF5 or .npz file is needed")
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _why_missing(path: Path) -> str:
    if path.is_symlink():
        return f"{path} is a link to what is not there, or to itself: mend the link"
    if path.parts and path.parts[0].endswith(":"):
        return f"{path} is no path: download the file, and name it where it then lies"
    return f"no such file: {path} (looked for in {Path.cwd()})"


def unpacked_folder() -> Path:
    """Return where numbers are kept that their file has compressed, to be mapped."""
    return cache_folder() / "unpacked"


def _mapped(columns: Mapping[str, Column], sha256: str, said: str) -> list[np.ndarray]:
    """Map the numbers where they lie, or where they are unpacked to, now or before.

    Args:
      columns: of the file.
      sha256: of the file.
      said: to the user, once it is known that there is room for it.
    """
    folder = unpacked_folder()
    mapped = {key: columns[key].mapped() for key in schema.NUMBERS}
    files = {
        key: folder / f"{sha256}-{key}.npy"
        for key, array in mapped.items()
        if array is None
    }
    missing = [key for key in files if not is_as_recorded(files[key])]
    size = 4 * sum(math.prod(columns[key].shape) for key in missing)
    with writing_to_cache(size) as cache:
        check_room(cache, size)
        print(said, file=sys.stderr)
        for key in missing:
            with alone_with(files[key], "unpacking"):
                if is_as_recorded(files[key]):  # another process was faster
                    continue
                print(f"unpacking {key}, once, to {files[key]}", file=sys.stderr)
                _unpack(columns[key], files[key])
                record_sha256(files[key], sha256_of(files[key]))
    return [
        np.load(files[key], mmap_mode="r") if array is None else array
        for key, array in mapped.items()
    ]


def _unpack(column: Column, path: Path) -> None:
    """Write a .npy of float32 row by row."""
    header = {"descr": "<f4", "fortran_order": False, "shape": column.shape}
    with replacing(path) as part, part.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in column.blocks():
            with np.errstate(over="ignore"):  # found when the numbers are checked
                file.write(np.ascontiguousarray(block, "<f4").data)
