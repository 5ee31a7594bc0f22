"""Hugging Face's DecisionTransformerModel: a folder with its config.json and weights.

Neither its library nor PyTorch is needed, except PyTorch for a pytorch_model.bin.

The network is ours with a few differences. Row 0 of `encoder.wpe`, GPT-2's position
table, is added to every token after `embed_ln`; we add it to the bias of that norm.
GPT-2's Conv1D has matrices [in, out], like ours. The heads for states and returns are
used only in training. Actions are tanh's: there is no max_action. Names as in
transformers 5.24, models/decision_transformer/modeling_decision_transformer.py.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from dt_jax.config.load import from_dict
from dt_jax.data.normalizer import Normalizer
from dt_jax.interop import safetensors
from dt_jax.interop.common import (
    RECORD,
    PortableAgent,
    count_blocks,
    float32_arrays,
    from_pytorch,
    imported_config,
    load_torch,
    parameter_names,
    read_json,
    to_pytorch,
)
from dt_jax.networks.layers import LAYER_NORM_EPS
from dt_jax.types import Params
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import to_json, user_path, write_text

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
_POSITIONS = "encoder.wpe.weight"
# No action depends on these: GPT-2's vocabulary, the other heads, and the masks that
# older versions saved.
_UNUSED = re.compile(
    r"encoder\.wte\.weight|predict_(state|return)\.(weight|bias)"
    r"|encoder\.h\.\d+\.attn\.(bias|masked_bias)"
)

# Settings that our network does not have -> the only supported values.
_FIXED = {
    "model_type": "decision_transformer",
    "action_tanh": True,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "layer_norm_epsilon": LAYER_NORM_EPS,
}
# config.json's key -> our key, and the default of config.json.
_SETTINGS = {
    "n_head": ("num_heads", 1),
    "activation_function": ("activation", "relu"),
    "attn_pdrop": ("attention_dropout", 0.1),
    "resid_pdrop": ("residual_dropout", 0.1),
    "embd_pdrop": ("embedding_dropout", 0.1),
}
_ALIASES = {"num_attention_heads": "n_head"}
_SEQ_LEN = 20  # the paper's K, if nothing else is given


def _names(num_layers: int) -> dict[str, tuple[str, bool]]:
    return parameter_names(_MODULES, _BLOCK_MODULES, "encoder.h.{}", num_layers)


def params_from_state_dict(state_dict: Mapping[str, np.ndarray]) -> Params:
    """Return our parameters, given the state_dict of a DecisionTransformerModel.

    The timestep table has as many rows as there: none for timesteps after an episode.

    Raises:
      KeyError: a parameter is missing or unknown.
    """
    params = {k: v for k, v in state_dict.items() if not _UNUSED.fullmatch(k)}
    blocks = {k.split(".")[2] for k in params if re.match(r"encoder\.h\.\d+\.", k)}
    names = _names(len(blocks)) | {_POSITIONS: ("positions", False)}
    flat = from_pytorch(params, names, "a DecisionTransformerModel")
    first, bias = flat.pop("positions")[0], flat["transformer/emb_norm/bias"]
    flat["transformer/emb_norm/bias"] = bias + first
    return unflatten_dict(flat, sep="/")


def state_dict_from_params(params: Params, num_positions: int) -> dict[str, np.ndarray]:
    """Return the state_dict of a DecisionTransformerModel; unused parameters are zero.

    `params` have max_action 1; the position table has `num_positions` rows.
    """
    states, width = params["state_emb"]["kernel"].shape
    zeros: dict[str, tuple[int, ...]] = {
        "encoder.wte.weight": (1, width),
        _POSITIONS: (num_positions, width),
    }
    for head, size in (("state", states), ("return", 1)):
        zeros[f"predict_{head}.weight"] = (size, width)
        zeros[f"predict_{head}.bias"] = (size,)
    return to_pytorch(params, _names(count_blocks(params))) | {
        name: np.zeros(shape, np.float32) for name, shape in zeros.items()
    }


def save(folder: Path, agent: PortableAgent) -> PortableAgent:
    """Write what `DecisionTransformerModel.from_pretrained(folder)` loads.

    Returns:
      The agent as it is written, with max_action 1.
    """
    agent = agent.with_max_action(1.0)
    config, normalizer = agent.config, agent.normalizer
    # The rows beyond the longest episode are for padding on the right; Hugging Face
    # pads on the left.
    table = agent.params["timestep_emb"]["embedding"][: config["episode_len"]]
    params = {**agent.params, "timestep_emb": {"embedding": table}}
    num_positions = 3 * config["seq_len"]
    values = {
        "architectures": ["DecisionTransformerModel"],
        **_FIXED,
        **{theirs: config[ours] for theirs, (ours, _) in _SETTINGS.items()},
        "act_dim": normalizer.action_size,
        "bos_token_id": None,
        "eos_token_id": None,
        "hidden_size": config["embedding_dim"],
        "max_ep_len": config["episode_len"],
        "n_inner": None,
        "n_layer": config["num_layers"],
        "n_positions": num_positions,
        "state_dim": normalizer.observation_size,
        "vocab_size": 1,
    }
    arrays = state_dict_from_params(params, num_positions)
    safetensors.write_arrays(folder / safetensors.WEIGHTS, arrays, {"format": "pt"})
    write_text(folder / "config.json", to_json(values, indent=2) + "\n")
    return agent


def load(
    folder: Path, overrides: Mapping[str, Any], normalization: str | Path | None
) -> tuple[PortableAgent, Path]:
    """Return the agent of a DecisionTransformerModel, and the file of its weights.

    Args:
      folder: as `save_pretrained` writes it or the hub has it.
      overrides: values of configuration keys.
      normalization: JSON with state_mean and state_std; None: the dt_jax.json in
        `folder`, if there is one.

    Raises:
      UserError: there is no such model, our network cannot represent it, or its
        reward_scale is unknown.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(
            f"no {path}: expected a folder with the config.json and the weights of a "
            "DecisionTransformerModel, as `hf download` fetches it"
        )
    settings = _read_config(path)
    weights, arrays = _read_weights(folder)
    try:
        params = params_from_state_dict(arrays)
    except KeyError as error:
        raise UserError(f"{weights}: {error.args[0][:300]}") from None
    sizes = params["state_emb"]["kernel"].shape[0], params["action_head"]["bias"].size
    stated, units = _read_record(folder, normalization, *sizes)
    stated |= overrides
    if "reward_scale" not in stated:
        raise UserError(
            f"{folder} does not have its reward_scale: give the factor of its returns "
            "by --reward_scale=..."
        )
    table = params["timestep_emb"]["embedding"]
    network = settings | {
        "agent": "dt",
        "embedding_dim": table.shape[1],
        "num_layers": count_blocks(params),
        "seq_len": stated.get("seq_len", _SEQ_LEN),
        "episode_len": len(table),
        "max_action": 1.0,
    }
    config = imported_config(weights, network, stated)
    # Our table also has rows for the padding after an episode's end.
    padding = np.zeros((config["seq_len"], table.shape[1]), np.float32)
    params["timestep_emb"]["embedding"] = np.concatenate([table, padding])
    scale = config["reward_scale"]
    normalizer = Normalizer(**units, reward_scale=scale, discrete=False)
    return PortableAgent(params, config, normalizer), weights


def _read_config(path: Path) -> dict[str, Any]:
    """Return config.json's values of our keys; refuse what our network lacks."""
    values = {_ALIASES.get(key, key): value for key, value in read_json(path).items()}
    for key, ours in _FIXED.items():
        if (theirs := values.get(key, ours)) != ours:
            raise UserError(f"{path} has {key}={theirs}: only {ours} is supported")
    return {
        ours: values.get(name, default) for name, (ours, default) in _SETTINGS.items()
    }


def _read_weights(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Return the file of the weights and its arrays."""
    path = folder / safetensors.WEIGHTS
    if path.is_file():
        return path, safetensors.read_arrays(path, ignored=_UNUSED)
    path = folder / "pytorch_model.bin"
    if not path.is_file():
        raise UserError(
            f"no {safetensors.WEIGHTS} or pytorch_model.bin in {folder}: expected the "
            "weights in one file"
        )
    saved = load_torch(path, "hf", "a state_dict")
    used = {k: v for k, v in saved.items() if not _UNUSED.fullmatch(str(k))}
    return path, float32_arrays(path, used)


def _read_record(
    folder: Path, normalization: str | Path | None, state_size: int, action_size: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the configuration, if there is one, and the units from a dt_jax.json.

    Without action_center and action_scale, actions are in the network's units.
    """
    path = folder / RECORD if normalization is None else user_path(normalization)
    identity = {
        "state_mean": np.zeros(state_size),
        "state_std": np.ones(state_size),
        "action_center": np.zeros(action_size),
        "action_scale": np.ones(action_size),
    }
    if normalization or path.is_file():
        record = read_json(path)
        for key in ("action_center", "action_scale"):
            record.setdefault(key, identity[key])
    else:
        warnings.warn(
            f"{folder} has no {RECORD}: observations are not normalised; give "
            "state_mean and state_std, perhaps from the model's card, by "
            "--normalization",
            stacklevel=1,
        )
        record = dict(identity)
    units = float32_arrays(path, {key: record.get(key, ()) for key in identity})
    for key, array in units.items():
        if array.shape != identity[key].shape:
            size = identity[key].size
            raise UserError(f"{path}: expected {size} numbers as its {key}")
        if key in ("state_std", "action_scale") and array.min() <= 0:
            raise UserError(f"{path}: {key} has a value that is not positive")
    if "config" not in record:
        return {}, units
    try:
        return from_dict(record["config"]).to_dict(), units
    except UserError as error:
        raise UserError(f"{path}: its config is not valid: {error}") from None
