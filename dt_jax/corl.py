"""CORL's PyTorch parameters and ours, both ways; the file that its dt.py saves.

CORL's names are those of `DecisionTransformer.state_dict()` in its
`algorithms/offline/dt.py`. Its matrices are [out, in], ours [in, out]; its attention's
in-projection stacks q, k and v, and so does ours.
"""

import math
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

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


def read_checkpoint(path: Path) -> CorlCheckpoint:
    """Read the `dt_checkpoint.pt` that CORL's dt.py saves; nothing in it is run.

    Raises:
      UserError: PyTorch is not installed, or the file is no such checkpoint, not whole,
        or has numbers in it that are not finite.
    """
    torch = _torch(path)
    saved = _load(torch, path)
    model_state = saved["model_state"]
    state_dict = {
        str(name): _float32(torch, path, name, value)
        for name, value in model_state.items()
    }
    mean, std = (
        _float32(torch, path, name, saved[name]).ravel()  # CORL's are [1, S]
        for name in ("state_mean", "state_std")
    )
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
    return import_module("torch")


def _load(torch: Any, path: Path) -> dict[str, Any]:
    """Return the three entries of CORL's file; of its pickle only arrays are built."""
    reconstruct = np.empty(0).__reduce__()[0]
    arrays_only = [
        (reconstruct, "numpy._core.multiarray._reconstruct"),  # NumPy 2's name of it
        (reconstruct, "numpy.core.multiarray._reconstruct"),  # NumPy 1's
        np.ndarray,
        np.dtype,
        np.dtypes.Float32DType,
        np.dtypes.Float64DType,
    ]
    expected = f"{path} is no checkpoint of CORL's dt.py"
    with path.open("rb") as file, torch.serialization.safe_globals(arrays_only):
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


def _float32(torch: Any, path: Path, name: str, value: Any) -> np.ndarray:
    """Return a tensor or an array as finite float32 numbers."""
    try:
        array = torch.as_tensor(value, dtype=torch.float32).detach().numpy()
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{path}: {name} is no array of numbers") from None
    if not array.size or not np.isfinite(array).all():
        raise UserError(
            f"{path}: {name} is empty, or has NaN or infinity in it: the run that "
            "saved it is of no use"
        )
    return array
