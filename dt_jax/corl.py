"""CORL's PyTorch parameters and ours, both ways; the file that its dt.py saves.

CORL's names are those of `DecisionTransformer.state_dict()` in its
`algorithms/offline/dt.py`. Its matrices are [out, in], ours [in, out]; its attention's
in-projection stacks q, k and v, and so does ours.
"""

import math
import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dt_jax.errors import UserError
from dt_jax.types import Params

# CORL's module -> ours, and how it keeps its arrays.
_MODULES = {
    "timestep_emb": ("timestep_emb", "embedding"),
    "state_emb": ("state_emb", "linear"),
    "action_emb": ("action_emb", "linear"),
    "return_emb": ("return_emb", "linear"),
    "emb_norm": ("transformer/emb_norm", "norm"),
    "out_norm": ("transformer/out_norm", "norm"),
    "action_head.0": ("action_head", "linear"),
}
_BLOCK_MODULES = {
    "norm1": ("norm1", "norm"),
    "norm2": ("norm2", "norm"),
    "attention.out_proj": ("attention/out_proj", "linear"),
    "mlp.0": ("mlp_in", "linear"),
    "mlp.2": ("mlp_out", "linear"),
}
_WEIGHT = {"embedding": "embedding", "linear": "kernel", "norm": "scale"}


def _names(num_layers: int) -> dict[str, tuple[str, bool]]:
    """Return CORL's name -> (our path, whether the array is transposed)."""
    modules = dict(_MODULES)
    names = {}
    for i in range(num_layers):
        ours = f"transformer/blocks_{i}"
        for module, (path, kind) in _BLOCK_MODULES.items():
            modules[f"blocks.{i}.{module}"] = (f"{ours}/{path}", kind)
        in_proj = f"{ours}/attention/in_proj"
        names[f"blocks.{i}.attention.in_proj_weight"] = (f"{in_proj}/kernel", True)
        names[f"blocks.{i}.attention.in_proj_bias"] = (f"{in_proj}/bias", False)
    for module, (path, kind) in modules.items():
        names[f"{module}.weight"] = (f"{path}/{_WEIGHT[kind]}", kind == "linear")
        if kind != "embedding":
            names[f"{module}.bias"] = (f"{path}/bias", False)
    return names


def params_from_state_dict(state_dict: Mapping[str, np.ndarray]) -> Params:
    """Return our parameters for the state_dict of CORL's DecisionTransformer.

    Args:
      state_dict: CORL's names -> arrays, or torch tensors on the CPU. Its
        `blocks.i.causal_mask` buffers are no parameters and are left out.

    Returns:
      The nested dict that `DecisionTransformer.apply` takes, same dtypes.

    Raises:
      KeyError: a parameter is missing, or one is there that CORL's network lacks.
    """
    given = {k for k in state_dict if not k.endswith(".causal_mask")}
    num_layers = len({k.split(".")[1] for k in given if k.startswith("blocks.")})
    names = _names(num_layers)
    if given != names.keys():
        missing = sorted(names.keys() - given)
        unknown = sorted(given - names.keys())
        raise KeyError(
            f"not the state_dict of CORL's DecisionTransformer: missing {missing}, "
            f"unknown {unknown}"
        )
    flat = {}
    for name, (path, transposed) in names.items():
        array = np.asarray(state_dict[name])
        flat[path] = array.T if transposed else array
    return unflatten_dict(flat, sep="/")


def state_dict_from_params(params: Params) -> dict[str, np.ndarray]:
    """Return CORL's names and layouts for our parameters.

    `load_state_dict(..., strict=False)` takes it after conversion to tensors: the
    `blocks.i.causal_mask` buffers, which CORL's constructor makes, are not in it.
    """
    flat = flatten_dict(params, sep="/")
    num_layers = sum(key.startswith("blocks_") for key in params["transformer"])
    state_dict = {}
    for name, (path, transposed) in _names(num_layers).items():
        array = np.asarray(flat[path])
        state_dict[name] = np.ascontiguousarray(array.T) if transposed else array
    return state_dict


class CorlCheckpoint(NamedTuple):
    """What CORL's dt.py saves at the end of training, in our layout and float32.

    Attributes:
      params: of our network, as `params_from_state_dict` returns them.
      state_mean: [S] of the data that it was trained on.
      state_std: [S], positive.
      seq_len: T, by the size of its causal masks; None without them.
    """

    params: Params
    state_mean: np.ndarray
    state_std: np.ndarray
    seq_len: int | None


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


def read_checkpoint(path: Path) -> CorlCheckpoint:
    """Read the `dt_checkpoint.pt` that CORL's dt.py saves; nothing in it is run.

    Raises:
      UserError: PyTorch is not installed, or the file is no such checkpoint, not whole,
        or has numbers in it that are not finite.
    """
    torch = _torch(path)
    saved = _load(torch, path)
    state_dict = _float32(torch, path, saved["model_state"])
    scaling = {name: saved[name] for name in ("state_mean", "state_std")}
    arrays = _float32(torch, path, scaling).values()
    mean, std = (array.ravel() for array in arrays)  # CORL's are [1, S]
    try:
        params = params_from_state_dict(state_dict)
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0][:300]}") from None
    states = params["state_emb"]["kernel"].shape[:1]
    if not mean.shape == std.shape == states:
        raise UserError(
            f"{path}: state_mean has {mean.size} numbers, state_std {std.size}, but "
            f"state_emb takes {states}: they are of different runs"
        )
    if std.min() <= 0:
        raise UserError(f"{path}: a number in state_std is not positive")
    masks = [v for name, v in state_dict.items() if name.endswith(".causal_mask")]
    seq_len = math.isqrt(masks[0].size) // 3 if masks else None  # [3T, 3T]
    return CorlCheckpoint(params, mean, std, seq_len)


def _torch(path: Path) -> Any:
    if find_spec("torch") is None:
        raise UserError(
            f"{path}: to read CORL's files takes PyTorch: pip install 'dt_jax[corl]'"
        )
    torch = import_module("torch")
    if torch.__version__ < "2.6":  # CVE-2025-32434
        raise UserError(
            f"{path}: PyTorch {torch.__version__} may run what is in a file; to read "
            "CORL's takes 2.6 or newer: pip install 'dt_jax[corl]'"
        )
    return torch


def _load(torch: Any, path: Path) -> dict[str, Any]:
    """Return the three entries of CORL's file; of its pickle only arrays are built."""
    expected = f"{path} is no checkpoint of CORL's dt.py"
    with (
        path.open("rb") as file,
        torch.serialization.safe_globals(_ALLOWED),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # about pickles that are not torch's own
        try:
            saved = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch's are of a dozen kinds
            # Its own words are left out: they advise to run what is in the file.
            raise UserError(
                f"{expected}, or not the whole file, or has more than arrays in it: "
                "copy it anew, or name another file"
            ) from error
    names = ("model_state", "state_mean", "state_std")
    if not isinstance(saved, dict) or not {*names} <= saved.keys():
        raise UserError(f"{expected}, which has {', '.join(names)}: name another file")
    if not isinstance(saved["model_state"], dict):
        raise UserError(f"{expected}: its model_state is no state_dict")
    return saved


def _float32(
    torch: Any, path: Path, values: Mapping[Any, Any]
) -> dict[str, np.ndarray]:
    """Return tensors and arrays by their names, as finite float32 numbers."""
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
    return {name: _finite(torch, path, name, value) for name, value in tensors.items()}


def _finite(torch: Any, path: Path, name: str, tensor: Any) -> np.ndarray:
    try:
        array = tensor.detach().to(torch.float32).numpy()
    except (TypeError, RuntimeError):  # of a kind that NumPy has not
        raise UserError(f"{path}: {name} is no array of numbers") from None
    if not array.size or not np.isfinite(array).all():
        raise UserError(
            f"{path}: {name} is empty, or has NaN or infinity in it: the run that "
            "saved it is of no use"
        )
    return array
