"""CORL's PyTorch parameters and ours, both ways; the file that its dt.py saves.

CORL's names are those of `DecisionTransformer.state_dict()` in its
`algorithms/offline/dt.py`. Its matrices are [out, in], ours [in, out]; its attention's
in-projection stacks q, k and v, and so does ours.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dt_jax.data.normalizer import Normalizer
from dt_jax.interop import torch_files
from dt_jax.interop.interchange import from_pytorch, parameter_names, to_pytorch
from dt_jax.types import Params
from dt_jax.utils.errors import UserError

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
    return names | parameter_names(modules)


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
    given = {k: v for k, v in state_dict.items() if not k.endswith(".causal_mask")}
    layers = len({k.split(".")[1] for k in given if k.startswith("blocks.")})
    flat = from_pytorch(given, _names(layers), "CORL's DecisionTransformer")
    return unflatten_dict(flat, sep="/")


def state_dict_from_params(params: Params) -> dict[str, np.ndarray]:
    """Return CORL's names and layouts for our parameters.

    `load_state_dict(..., strict=False)` takes it after conversion to tensors: the
    `blocks.i.causal_mask` buffers, which CORL's constructor makes, are not in it.
    """
    flat = {k: np.asarray(v) for k, v in flatten_dict(params, sep="/").items()}
    return to_pytorch(flat, _names(num_layers(params)))


def num_layers(params: Params) -> int:
    """Return the number of our network's blocks."""
    return sum(key.startswith("blocks_") for key in params["transformer"])


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

    def network(self, seq_len: int) -> dict[str, Any]:
        """Return what the file tells of the keys that shape the network.

        Args:
          seq_len: that of its masks, or where it has none another source's.
        """
        embedding_dim = self.params["transformer"]["emb_norm"]["scale"].size
        rows = self.params["timestep_emb"]["embedding"].size // embedding_dim
        return {
            "embedding_dim": embedding_dim,
            "num_layers": num_layers(self.params),
            "activation": "gelu",
            "seq_len": seq_len,
            "episode_len": rows - seq_len,
        }

    def normalizer(self, reward_scale: float) -> Normalizer:
        """Return the units of the network; CORL's actions are raw."""
        action_size = self.params["action_head"]["bias"].size
        return Normalizer(
            self.state_mean,
            self.state_std,
            action_center=np.zeros(action_size, np.float32),
            action_scale=np.ones(action_size, np.float32),
            reward_scale=reward_scale,
        )


def read_checkpoint(path: Path) -> CorlCheckpoint:
    """Read the `dt_checkpoint.pt` that CORL's dt.py saves; nothing in it is run.

    Raises:
      UserError: PyTorch is not installed, or the file is no such checkpoint, not whole,
        or has numbers in it that are not finite.
    """
    torch = torch_files.import_torch(path, "to read CORL's files", "corl")
    saved = _load(torch, path)
    state_dict = torch_files.float32(torch, path, saved["model_state"])
    scaling = {name: saved[name] for name in ("state_mean", "state_std")}
    arrays = torch_files.float32(torch, path, scaling).values()
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


def _load(torch: Any, path: Path) -> dict[str, Any]:
    """Return the three entries of CORL's file."""
    expected = f"{path} is no checkpoint of CORL's dt.py"
    saved = torch_files.load(torch, path, expected)
    names = ("model_state", "state_mean", "state_std")
    if not isinstance(saved, dict) or not {*names} <= saved.keys():
        raise UserError(f"{expected}, which has {', '.join(names)}: name another file")
    if not isinstance(saved["model_state"], dict):
        raise UserError(f"{expected}: its model_state is no state_dict")
    return saved
