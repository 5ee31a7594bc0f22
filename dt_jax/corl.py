"""CORL's PyTorch parameters and ours, both ways.

CORL's names are those of `DecisionTransformer.state_dict()` in its
`algorithms/offline/dt.py`. Its matrices are [out, in], ours [in, out]; its attention's
in-projection stacks q, k and v, and so does ours.
"""

from collections.abc import Mapping

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

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
