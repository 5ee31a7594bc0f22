"""PyTorch's files, of which nothing but arrays is built; nothing in them is run."""

import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dt_jax.utils.errors import UserError


class _Dtype:
    """What `numpy.dtype` stands for in a file: float32 or float64."""

    def __init__(self, name: str, align: bool = False, copy: bool = True):
        if name not in ("f4", "f8"):
            raise ValueError(name)
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """What `numpy.ndarray` stands for in a file; NumPy's own trusts what it is given.

    To let a file call that would be to let it make objects of its bytes.
    """

    array = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, by_column, content = state
        order: Literal["C", "F"] = "F" if by_column else "C"
        self.array = np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


def _reconstruct(kind: type, shape: tuple, letter: bytes) -> _Array:
    """Return what `_Array.__setstate__` then fills, as NumPy's function does."""
    return _Array()


# Whatever else is in a pickle is refused, but for PyTorch's own tensors.
_ALLOWED = [
    (_reconstruct, "numpy._core.multiarray._reconstruct"),  # NumPy 2's name of it
    (_reconstruct, "numpy.core.multiarray._reconstruct"),  # NumPy 1's
    (_Array, "numpy.ndarray"),
    (_Dtype, "numpy.dtype"),
]


def import_torch(path: Path, doing: str, extra: str) -> Any:
    """Return PyTorch.

    Args:
      path: the file that it is for.
      doing: what takes it, "to read CORL's files".
      extra: of dt_jax, which installs it.

    Raises:
      UserError: it is not installed, or so old that it could run what is in a file.
    """
    install = f"pip install 'dt_jax[{extra}]'"
    if find_spec("torch") is None:
        raise UserError(f"{path}: {doing} takes PyTorch: {install}")
    torch = import_module("torch")
    if torch.__version__ < "2.6":  # CVE-2025-32434
        raise UserError(
            f"{path}: PyTorch {torch.__version__} may run what is in a file; "
            f"{doing} takes 2.6 or newer: {install}"
        )
    return torch


def load(torch: Any, path: Path, expected: str) -> Any:
    """Return what is in a file; of its pickle only tensors and arrays are built.

    Args:
      torch: as `import_torch` returned it.
      path: the file.
      expected: how the line begins about a file that has something else in it.

    Raises:
      UserError: it has, or is not whole.
    """
    with (
        path.open("rb") as file,
        torch.serialization.safe_globals(_ALLOWED),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # about pickles that are not torch's own
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch's are of a dozen kinds
            # Its own words are left out: they advise to run what is in the file.
            raise UserError(
                f"{expected}, or not the whole file, or has more than arrays in it: "
                "copy it anew, or name another file"
            ) from error


def float32(torch: Any, path: Path, values: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """Return tensors and arrays by their names, as finite float32 numbers.

    Raises:
      UserError: one is something else, or they are more than the file's own bytes.
    """
    tensors, count = {}, 0
    for name, value in values.items():
        if isinstance(value, _Array):
            value = torch.tensor(value.array.astype(np.float64))
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{path}: {name} is no array of numbers")
        tensors[str(name)] = value
        count += value.numel()
    if count > path.stat().st_size:  # a tensor can repeat one number without end
        raise UserError(f"{path} announces {count:,} numbers, more than its bytes")
    return {name: _array(torch, path, name, value) for name, value in tensors.items()}


def _array(torch: Any, path: Path, name: str, tensor: Any) -> np.ndarray:
    try:
        array: np.ndarray = tensor.detach().to(torch.float32).numpy()
    except (TypeError, RuntimeError):  # of a kind that NumPy has not
        raise UserError(f"{path}: {name} is no array of numbers") from None
    return finite(path, name, array)


def finite(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """Return the array; a UserError if it is empty or has other numbers in it."""
    if not array.size or not np.isfinite(array).all():
        raise UserError(
            f"{path}: {name} is empty, or has NaN or infinity in it: the run that "
            "saved it is of no use"
        )
    return array
