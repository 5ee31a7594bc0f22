"""D4RL's HDF5 schema: a file of flat arrays, one row a transition."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from dt_jax.data.schema import BLOCK_ROWS, RawData
from dt_jax.errors import UserError

_STATES = "infos/qpos", "infos/qvel"
_MATRICES = "observations", "actions", *_STATES  # the others have one number a row


def read_hdf5(path: Path) -> RawData:
    """Read a file in D4RL's schema; numbers of any width become float32 on the way.

    Args:
      path: an HDF5 file with the keys of `RawData`; any others are left alone.

    Raises:
      UserError: there is no such file, or it is not one of this schema: keys are
        missing, shapes disagree, it is empty, or a number is NaN or infinite.
    """
    with _opened(path) as file:
        raw = _read(file, path)
    for key, array in raw._asdict().items():
        _check_finite(array, f"{path}: {key}")
    return raw


def read_states(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the simulator's states, infos/qpos [M, nq] and infos/qvel [M, nv], float64.

    Raises:
      UserError: there is no such file, or it does not keep them as such: see
        `read_hdf5`.
    """
    with _opened(path) as file:
        # With the rewards, for each row is to have its state.
        _, *datasets = _datasets(file, ("rewards", *_STATES), path, "a replay")
        qpos, qvel = (_read_floats(dataset, np.float64) for dataset in datasets)
    for key, array in zip(_STATES, (qpos, qvel), strict=True):
        _check_finite(array, f"{path}: {key}")
    return qpos, qvel


def read_env_name(path: Path) -> str | None:
    """Return the `env_name` that our collectors note in a file, if it is there."""
    with _opened(path) as file:
        name = file.attrs.get("env_name")
    return name if isinstance(name, str) else None


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading; what is wrong with it becomes a UserError."""
    if not path.exists():
        raise UserError(f"no such file: {path} (looked for in {Path.cwd()})")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no ordinary file"
        raise UserError(f"{path} is {kind}; an HDF5 file is needed")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except PermissionError:
        raise
    except (OSError, RuntimeError) as error:  # what h5py raises for a damaged file
        why = " ".join(str(error).split())
        raise UserError(
            f"{path} is not an HDF5 file, or is damaged; get it again ({why})"
        ) from None


def _read(file: h5py.File, path: Path) -> RawData:
    observations, actions, rewards, terminals, timeouts = _datasets(
        file, RawData._fields, path, "a dataset"
    )
    return RawData(
        observations=_read_floats(observations, np.float32),
        actions=_read_floats(actions, np.float32),
        rewards=_read_floats(rewards, np.float32).reshape(-1),
        terminals=_read_flags(terminals, f"{path}: terminals"),
        timeouts=_read_flags(timeouts, f"{path}: timeouts"),
    )


def _datasets(
    file: h5py.File, keys: tuple[str, ...], path: Path, what: str
) -> tuple[h5py.Dataset, ...]:
    """Return the arrays that `what` needs, of numbers and of one length."""
    found = {key: file.get(key) for key in keys}
    datasets = {k: v for k, v in found.items() if isinstance(v, h5py.Dataset)}
    if missing := [key for key in keys if key not in datasets]:
        raise UserError(
            f"{path} lacks {', '.join(missing)}; {what} needs {', '.join(keys)}"
        )
    for key, dataset in datasets.items():
        if dataset.dtype.kind not in "biuf":
            raise UserError(f"{path}: {key} holds {dataset.dtype}, numbers are needed")
    _check_shapes({key: d.shape or () for key, d in datasets.items()}, path)
    return tuple(datasets.values())


def _check_shapes(shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    for key, shape in shapes.items():
        rank = 2 if key in _MATRICES else 1
        # Like d4rl's get_dataset, take a single column [M, 1] for [M].
        column = rank == 1 and len(shape) == 2 and shape[1] == 1
        if len(shape) != rank and not column:
            needed = "[steps, size]" if rank == 2 else "[steps]"
            raise UserError(f"{path}: {key} has shape {shape}; {needed} is needed")
        if 0 in shape:
            raise UserError(f"{path}: {key} is empty, its shape is {shape}")
    lengths = {key: shape[0] for key, shape in shapes.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise UserError(f"{path}: the arrays differ in length: {told}")


def _read_floats(dataset: h5py.Dataset, dtype: type[np.floating]) -> np.ndarray:
    """Convert while reading: a wider file never stands whole in memory."""
    array = np.empty(dataset.shape, dtype)
    dataset.read_direct(array)
    return array


def _read_flags(dataset: h5py.Dataset, name: str) -> np.ndarray:
    values = dataset[...].reshape(-1)
    _check_finite(values, name)
    return values != 0


def _check_finite(array: np.ndarray, name: str) -> None:
    for start in range(0, len(array), BLOCK_ROWS):
        finite = np.isfinite(array[start : start + BLOCK_ROWS])
        if not finite.all():
            row = start + np.argwhere(~finite)[0, 0]
            raise UserError(f"{name} has a NaN or an infinity, first in row {row}")
