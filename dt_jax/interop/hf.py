"""Hugging Face's DecisionTransformerModel, its parameters and ours, both ways.

Its network is ours but for a few traps. Row 0 of `encoder.wpe`, GPT-2's table of
positions, is added to every token after `embed_ln`, whose bias takes it up. GPT-2's
Conv1D keeps its matrices [in, out], as we do. The heads for states and returns serve
training alone. Actions are tanh's: there is no max_action. As transformers 5.24 has it
in models/decision_transformer/modeling_decision_transformer.py.
"""

import re
from collections.abc import Mapping

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dt_jax.interop.interchange import from_pytorch, parameter_names, to_pytorch
from dt_jax.types import Params

_MODULES = {
    "embed_timestep": ("timestep_emb", "embedding"),
    "embed_return": ("return_emb", "linear"),
    "embed_state": ("state_emb", "linear"),
    "embed_action": ("action_emb", "linear"),
    "embed_ln": ("transformer/emb_norm", "norm"),
    "encoder.ln_f": ("transformer/out_norm", "norm"),
    "predict_action.0": ("action_head", "linear"),
}
_BLOCK_MODULES = {
    "ln_1": ("norm1", "norm"),
    "ln_2": ("norm2", "norm"),
    "attn.c_attn": ("attention/in_proj", "conv1d"),
    "attn.c_proj": ("attention/out_proj", "conv1d"),
    "mlp.c_fc": ("mlp_in", "conv1d"),
    "mlp.c_proj": ("mlp_out", "conv1d"),
}
# What no action depends on: GPT-2's words, the other heads, and the masks that older
# versions saved.
UNUSED = re.compile(
    r"encoder\.wte\.weight|predict_(state|return)\.(weight|bias)"
    r"|encoder\.h\.\d+\.attn\.(bias|masked_bias)"
)
_POSITIONS = "encoder.wpe.weight"


def _names(num_layers: int) -> dict[str, tuple[str, bool]]:
    """Return Hugging Face's name -> (our path, whether the array is transposed)."""
    modules = dict(_MODULES)
    for i in range(num_layers):
        for module, (path, kind) in _BLOCK_MODULES.items():
            modules[f"encoder.h.{i}.{module}"] = (
                f"transformer/blocks_{i}/{path}",
                kind,
            )
    return parameter_names(modules)


def state_dict_from_params(params: Params, num_positions: int) -> dict[str, np.ndarray]:
    """Return the state_dict of a DecisionTransformerModel: what is ours, and zeros.

    Args:
      params: of our network, with max_action 1.
      num_positions: rows of the table of positions, of which the first is used.
    """
    flat = {k: np.asarray(v) for k, v in flatten_dict(params, sep="/").items()}
    layers = sum(key.startswith("blocks_") for key in params["transformer"])
    width = flat["transformer/emb_norm/bias"].size
    heads = {"state": len(flat["state_emb/kernel"]), "return": 1}
    zeros = {
        "encoder.wte.weight": (1, width),
        _POSITIONS: (num_positions, width),
        **{f"predict_{name}.weight": (size, width) for name, size in heads.items()},
        **{f"predict_{name}.bias": (size,) for name, size in heads.items()},
    }
    return to_pytorch(flat, _names(layers)) | {
        name: np.zeros(shape, np.float32) for name, shape in zeros.items()
    }


def params_from_state_dict(state_dict: Mapping[str, np.ndarray]) -> Params:
    """Return our parameters for the state_dict of a DecisionTransformerModel.

    The table of timesteps is as it is there, without rows for what comes after an
    episode's end.

    Raises:
      KeyError: a parameter is missing, or one is there that the model lacks.
    """
    given = {k: v for k, v in state_dict.items() if not UNUSED.fullmatch(k)}
    blocks = {k.split(".")[2] for k in given if re.match(r"encoder\.h\.\d+\.", k)}
    names = _names(len(blocks)) | {_POSITIONS: ("positions", False)}
    flat = from_pytorch(given, names, "a DecisionTransformerModel")
    for path, array in flat.items():
        axes = 1 if path.endswith(("/bias", "/scale")) else 2
        if array.ndim != axes:
            raise KeyError(f"{path} has {array.ndim} axes instead of {axes}")
    first, bias = flat.pop("positions")[0], flat["transformer/emb_norm/bias"]
    if first.shape != bias.shape:
        raise KeyError(
            f"{_POSITIONS} has rows of {first.size} numbers, not {bias.size}"
        )
    flat["transformer/emb_norm/bias"] = bias + first
    return unflatten_dict(flat, sep="/")
