"""The folder of a DecisionTransformerModel of Hugging Face's, both ways.

config.json and the weights, as `save_pretrained` writes them; neither its library nor
PyTorch is needed for them, but for weights that PyTorch has saved.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from dt_jax.interop import torch_files
from dt_jax.interop.hf import UNUSED, params_from_state_dict, state_dict_from_params
from dt_jax.interop.interchange import (
    RECORD,
    Trained,
    check_agreement,
    read_json,
    read_record,
    write_safetensors,
)
from dt_jax.networks.layers import ACTIVATIONS, LAYER_NORM_EPS
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import user_path, write_text

# What our network can't be told -> what it is there; also where config.json is silent.
_FIXED = {
    "model_type": "decision_transformer",
    "action_tanh": True,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "layer_norm_epsilon": LAYER_NORM_EPS,
}
# config.json's key -> ours, and what it is where config.json is silent.
_TOLD = {
    "n_head": ("num_heads", 1),
    "activation_function": ("activation", "relu"),
    "attn_pdrop": ("attention_dropout", 0.1),
    "resid_pdrop": ("residual_dropout", 0.1),
    "embd_pdrop": ("embedding_dropout", 0.1),
}
_SEQ_LEN = 20  # the paper's K, where nothing tells it
_ALIASES = {"num_attention_heads": "n_head"}


def save(folder: Path, trained: Trained) -> Trained:
    """Write what `DecisionTransformerModel.from_pretrained(folder)` loads.

    Returns:
      The agent as it is there, with max_action 1.
    """
    trained = trained.with_max_action(1.0)
    config, (state_size, action_size) = trained.config, trained.sizes
    # The rows beyond an episode's longest are for the padding on the right, which is on
    # the left there.
    table = trained.params["timestep_emb"]["embedding"][: config["episode_len"]]
    params = trained.params | {"timestep_emb": {"embedding": table}}
    num_positions = 3 * config["seq_len"]
    told = {theirs: config[ours] for theirs, (ours, _) in _TOLD.items()}
    values = {
        "architectures": ["DecisionTransformerModel"],
        **_FIXED,
        **told,
        "act_dim": action_size,
        "bos_token_id": None,
        "eos_token_id": None,
        "hidden_size": config["embedding_dim"],
        "max_ep_len": config["episode_len"],
        "n_inner": None,
        "n_layer": config["num_layers"],
        "n_positions": num_positions,
        "state_dim": state_size,
        "vocab_size": 1,
    }
    arrays = state_dict_from_params(params, num_positions)
    write_safetensors(folder / "model.safetensors", arrays, {"format": "pt"})
    write_text(folder / "config.json", json.dumps(values, indent=2) + "\n")
    return trained


def load(
    folder: Path, given: Mapping[str, Any], normalization: str | Path | None
) -> tuple[Trained, Path, list[str]]:
    """Return the agent of a DecisionTransformerModel, its file, and what to mind.

    Args:
      folder: as `save_pretrained` leaves it, or as the hub has it.
      given: keys of a configuration, to be as they are here.
      normalization: JSON with state_mean and state_std; None: the dt_jax.json of
        `folder`, if it is there.

    Raises:
      UserError: there is no such model, or one that ours can't be, or its reward_scale
        is not told.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(
            f"no {path}: expected a folder with the config.json and the weights of a "
            "DecisionTransformerModel, as `hf download` fetches it"
        )
    shape = _read_config(path)
    weights, arrays = _read_weights(folder)
    try:
        params = params_from_state_dict(arrays)
    except KeyError as error:
        raise UserError(f"{weights}: {error.args[0][:300]}") from None
    sizes = params["state_emb"]["kernel"].shape[0], params["action_head"]["bias"].size
    said, scaling, lines = _scaling(folder, normalization, *sizes)
    said |= given
    if "reward_scale" not in said:
        raise UserError(
            f"{folder} does not say its reward_scale: give --reward_scale=..., with "
            "which returns were multiplied"
        )
    table, norm = params["timestep_emb"]["embedding"], params["transformer"]["emb_norm"]
    network = {
        "embedding_dim": norm["scale"].size,
        "num_layers": sum(key.startswith("blocks_") for key in params["transformer"]),
        "num_heads": shape["num_heads"],
        "activation": shape["activation"],
        "seq_len": said.get("seq_len", _SEQ_LEN),
        "episode_len": len(table),
        "max_action": 1.0,
    }
    check_agreement(weights, network, said, RECORD)
    # Ours has rows for the padding after an episode's end, too.
    more = np.zeros((network["seq_len"], *table.shape[1:]), np.float32)
    params["timestep_emb"]["embedding"] = np.concatenate([table, more])
    return Trained(params, said | shape | network, scaling), weights, lines


def _scaling(
    folder: Path, normalization: str | Path | None, state_size: int, action_size: int
) -> tuple[dict[str, Any], dict[str, np.ndarray], list[str]]:
    """Return what lies beside a model: configuration, scaling, and what to mind."""
    path = folder / RECORD if normalization is None else user_path(normalization)
    if normalization is not None and not path.is_file():
        raise UserError(f"--normalization={normalization}: there is no such file")
    if path.is_file():
        return *read_record(path, state_size, action_size), []
    scaling = {
        "state_mean": np.zeros(state_size, np.float32),
        "state_std": np.ones(state_size, np.float32),
        "action_center": np.zeros(action_size, np.float32),
        "action_scale": np.ones(action_size, np.float32),
    }
    line = (
        f"{folder} has no {RECORD}: observations go in as they are; --normalization "
        "gives state_mean and state_std, which the model's card may have"
    )
    return {}, scaling, [line]


def _read_config(path: Path) -> dict[str, Any]:
    """Return what config.json tells of our keys; refuse what ours can't be."""
    values = {_ALIASES.get(key, key): value for key, value in read_json(path).items()}
    for key, ours in _FIXED.items():
        if (theirs := values.get(key, ours)) != ours:
            raise UserError(
                f"{path} has {key}={theirs}: this network's is {ours}, and can't be "
                "changed"
            )
    told = {
        ours: values.get(theirs, default) for theirs, (ours, default) in _TOLD.items()
    }
    if told["activation"] not in [*ACTIVATIONS]:  # it may be anything
        raise UserError(
            f"{path} has activation_function={told['activation']}: this network has "
            f"{', '.join(ACTIVATIONS)}"
        )
    return told


def _read_weights(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Return the file of the weights, and what is in it."""
    path = folder / "model.safetensors"
    if path.is_file():
        return path, read_safetensors(path)
    path = folder / "pytorch_model.bin"
    if not path.is_file():
        raise UserError(
            f"neither model.safetensors nor pytorch_model.bin in {folder}: the weights "
            "have to be there, in one file"
        )
    torch = torch_files.import_torch(path, "to read pytorch_model.bin", "hf")
    expected = f"{path} has no weights of a model"
    saved = torch_files.load(torch, path, expected)
    if not isinstance(saved, dict):
        raise UserError(f"{expected}: it is no state_dict")
    used = {k: v for k, v in saved.items() if not UNUSED.fullmatch(str(k))}
    return path, torch_files.float32(torch, path, used)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by their names, as finite float32 numbers.

    Raises:
      UserError: it is no safetensors file, or not whole, or its numbers are others.
    """
    arrays = {}
    try:
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118, it is no dict
                if not UNUSED.fullmatch(name):
                    arrays[name] = file.get_tensor(name)
    except (SafetensorError, TypeError, ValueError, LookupError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no whole safetensors file: {why}") from None
    with np.errstate(over="ignore"):  # it becomes infinite, and is told
        return {
            name: torch_files.finite(path, name, array.astype(np.float32))
            for name, array in arrays.items()
        }
