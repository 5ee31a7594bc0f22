"""Read a file in D4RL's schema, into memory or memory-mapped."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dt_jax.data.arrays import aligned_empty, check_finite, machine_memory
from dt_jax.data.cache import (
    cache_folder,
    cache_lock,
    cache_space,
    matches_record,
    record_sha256,
    sha256_of,
)
from dt_jax.data.discrete import is_discrete, read_choices
from dt_jax.data.ends import read_timeouts
from dt_jax.data.hdf5 import hdf5_columns, open_hdf5
from dt_jax.data.npz import npz_columns
from dt_jax.data.rounding import Rounding, is_exact
from dt_jax.data.schema import (
    MATRICES,
    NUMBERS,
    Column,
    RawData,
    check_columns,
    corrupt_file_errors,
    read_flags,
)
from dt_jax.utils.errors import UserError, printable
from dt_jax.utils.files import atomic_write


def read_d4rl(
    path: Path,
    *,
    episode_len: int | None = None,
    num_choices: int | None = None,
    memory_limit_gb: float | None = None,
    sha256: str | None = None,
) -> RawData:
    """Read an HDF5 file or an .npz archive in D4RL's schema.

    Numbers are converted to float32 while they are read. If they would exceed the limit
    they are memory-mapped in the file's own width; arrays that cannot be mapped because
    they are compressed are unpacked into the cache folder first, once.

    Args:
      path: a file with the keys of `RawData`; other keys are ignored. `timeouts` may be
        missing, see `ends.read_timeouts`.
      episode_len: maximum length of an episode, for a file without episode ends.
      num_choices: of the environment's discrete actions; None: actions are discrete
        where they are integers or bools, and their number is that in the data.
      memory_limit_gb: memory for the numbers; None for half of the machine's memory.
      sha256: hash of the file, which names the unpacked arrays; None computes it.

    Raises:
      UserError: the file does not exist or does not follow the schema: keys are
        missing, shapes disagree, it is empty, a number is NaN or infinite, or a column
        loses its variation in float32.
    """
    open_columns = npz_columns if _is_npz(path) else hdf5_columns
    with corrupt_file_errors(path), open_columns(path) as columns:
        check_columns(columns, path)
        terminals = read_flags(columns["terminals"], f"{path}: terminals")
        limit = machine_memory() / 2
        if memory_limit_gb is not None:
            limit = min(memory_limit_gb * 1e9, machine_memory())
        discrete = num_choices is not None or is_discrete(columns["actions"])
        read = [key for key in NUMBERS if not (discrete and key == "actions")]
        numbers = sum(math.prod(columns[key].shape) for key in NUMBERS)
        needed = 4 * (numbers + len(terminals))  # float32, returns-to-go included
        rounding = {key: Rounding() for key in read}
        if needed <= limit:
            arrays = {key: _read_float32(columns[key], rounding[key]) for key in read}
        else:
            reason = (
                f"{path}: {needed / 1e9:.3g} GB of numbers exceed the limit of "
                f"{limit / 1e9:.3g} GB: memory-mapping them"
            )
            numeric = {key: columns[key] for key in read}
            arrays = _map(numeric, sha256 or sha256_of(path), reason)
            for key in set(read) & set(MATRICES):
                if not is_exact(columns[key].dtype):
                    for block in columns[key].blocks():
                        rounding[key].add(block)
        for key, array in arrays.items():
            check_finite(array, f"{path}: {key}")
        for key in read:
            if key in MATRICES:
                rounding[key].check(f"{path}: {key}")
        if discrete:
            name = f"{path}: actions"
            arrays["actions"] = read_choices(columns["actions"], name, num_choices)
        observations = arrays["observations"]
        timeouts = read_timeouts(columns, terminals, observations, path, episode_len)
    actions, rewards = arrays["actions"], arrays["rewards"].reshape(-1)
    return RawData(observations, actions, rewards, terminals, timeouts)


def read_env_name(path: Path) -> str | None:
    """Return the `env_name` that demo collection writes to a file, if there is one."""
    if _is_npz(path):
        return None
    with corrupt_file_errors(path), open_hdf5(path) as file:
        has_name = "env_name" in file.attrs and not file.attrs.get_id("env_name").shape
        name = file.attrs["env_name"] if has_name else None
    return printable(name) if isinstance(name, str) else None


def _is_npz(path: Path) -> bool:
    """Detect .npz by the first bytes; everything else is assumed to be HDF5."""
    if path.parts and path.parts[0].endswith(":"):
        raise UserError(f"{path} is not a local path; download it and give its path")
    if not path.exists():
        raise UserError(f"no such file: {path} (working folder: {Path.cwd()})")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise UserError(f"{path} is {kind}, expected an HDF5 or .npz file")
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _read_float32(column: Column, rounding: Rounding) -> np.ndarray:
    """Convert block by block: a wider array is never in memory as a whole."""
    array = aligned_empty(column.shape, np.float32)
    start = 0
    for block in column.blocks():
        with np.errstate(over="ignore"):  # check_finite finds overflows
            array[start : start + len(block)] = block
        rounding.add(block)
        start += len(block)
    return array


def unpacked_folder() -> Path:
    """Return the folder of arrays that were unpacked to be memory-mapped."""
    return cache_folder() / "unpacked"


def _map(
    columns: Mapping[str, Column], sha256: str, reason: str
) -> dict[str, np.ndarray]:
    """Memory-map columns in the file, or unpacked where they are compressed.

    `reason` is printed once the cache is known to have enough space.
    """
    mapped: dict[str, np.ndarray | None] = {k: columns[k].memmap() for k in columns}
    unpacked = {
        key: unpacked_folder() / f"{sha256}-{key}.npy"
        for key, array in mapped.items()
        if array is None
    }
    missing = [key for key, path in unpacked.items() if not matches_record(path)]
    with cache_space(4 * sum(math.prod(columns[key].shape) for key in missing)):
        print(reason, file=sys.stderr)
        for key in missing:
            with cache_lock(unpacked[key], "unpacking"):
                if matches_record(unpacked[key]):  # another process was faster
                    continue
                print(f"unpacking {key} to {unpacked[key]} (once)", file=sys.stderr)
                _unpack(columns[key], unpacked[key])
                record_sha256(unpacked[key], sha256_of(unpacked[key]))
    for key, path in unpacked.items():
        mapped[key] = np.load(path, mmap_mode="r")
    return {key: array for key, array in mapped.items() if array is not None}


def _unpack(column: Column, path: Path) -> None:
    """Write a column to a float32 .npy file, block by block."""
    header = {"descr": "<f4", "fortran_order": False, "shape": column.shape}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in column.blocks():
            with np.errstate(over="ignore"):  # check_finite finds overflows
                file.write(np.ascontiguousarray(block, "<f4").data)
