"""CORL's Decision Transformer: dt_checkpoint.pt and config.yaml, both ways.

Parameter names are those of `DecisionTransformer.state_dict()` in CORL's
`algorithms/offline/dt.py`, which saves both files. Its matrices are [out, in], ours
[in, out]; both stack q, k and v in the attention's in-projection.
"""

import math
from _compat_pickle import REVERSE_IMPORT_MAPPING
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import yaml
from flax.traverse_util import unflatten_dict

from dt_jax.config.keys import keys_of
from dt_jax.data.normalizer import Normalizer
from dt_jax.interop.common import (
    LOCAL_KEYS,
    PortableAgent,
    count_blocks,
    float32_arrays,
    from_pytorch,
    import_torch,
    imported_config,
    load_torch,
    parameter_names,
    to_pytorch,
)
from dt_jax.types import Params
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import write_text

_CHECKPOINT, _CONFIG = "dt_checkpoint.pt", "config.yaml"

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
    "attention.in_proj": ("attention/in_proj", "linear"),
    "attention.out_proj": ("attention/out_proj", "linear"),
    "mlp.0": ("mlp_in", "linear"),
    "mlp.2": ("mlp_out", "linear"),
}


def _names(num_layers: int) -> dict[str, tuple[str, bool]]:
    names = parameter_names(_MODULES, _BLOCK_MODULES, "blocks.{}", num_layers)
    # PyTorch's MultiheadAttention has it as parameters, not as a module.
    return {name.replace("in_proj.", "in_proj_"): x for name, x in names.items()}


def params_from_state_dict(state_dict: Mapping[str, np.ndarray]) -> Params:
    """Return our parameters, given the state_dict of CORL's DecisionTransformer.

    Its `blocks.i.causal_mask` buffers are not parameters and are left out.

    Raises:
      KeyError: a parameter is missing, or is unknown to CORL's network.
    """
    params = {k: v for k, v in state_dict.items() if not k.endswith(".causal_mask")}
    blocks = {k.split(".")[1] for k in params if k.startswith("blocks.")}
    flat = from_pytorch(params, _names(len(blocks)), "CORL's DecisionTransformer")
    return unflatten_dict(flat, sep="/")


def state_dict_from_params(params: Params) -> dict[str, np.ndarray]:
    """Return our parameters under CORL's names and in its layouts.

    Converted to tensors they suit `load_state_dict(..., strict=False)`: the
    `blocks.i.causal_mask` buffers are missing, which CORL's constructor makes.
    """
    return to_pytorch(params, _names(count_blocks(params)))


class CorlCheckpoint(NamedTuple):
    """The content of CORL's dt_checkpoint.pt, in our layout and float32.

    Attributes:
      params: of our network, as `params_from_state_dict` returns them.
      state_mean: [S] of the training data.
      state_std: [S], positive.
      seq_len: T, from the size of the causal masks; None without them.
    """

    params: Params
    state_mean: np.ndarray
    state_std: np.ndarray
    seq_len: int | None

    def network(self, seq_len: int) -> dict[str, Any]:
        """Return the values of configuration keys that follow from the file and T."""
        rows, embedding_dim = self.params["timestep_emb"]["embedding"].shape
        return {
            "embedding_dim": embedding_dim,
            "num_layers": count_blocks(self.params),
            "activation": "gelu",
            "seq_len": seq_len,
            "episode_len": rows - seq_len,
        }

    def normalizer(self, reward_scale: float) -> Normalizer:
        """Return the units of the network; CORL does not scale actions."""
        action_size = self.params["action_head"]["bias"].size
        return Normalizer(
            self.state_mean,
            self.state_std,
            action_center=np.zeros(action_size, np.float32),
            action_scale=np.ones(action_size, np.float32),
            reward_scale=reward_scale,
        )


def read_checkpoint(path: Path) -> CorlCheckpoint:
    """Read the dt_checkpoint.pt that CORL's dt.py saves; no code in it is executed.

    Raises:
      UserError: PyTorch is not installed, or the file is not such a checkpoint,
        truncated, or has values that are not finite.
    """
    content = "a checkpoint of CORL's dt.py"
    saved = load_torch(path, "corl", content)
    if not {"model_state", "state_mean", "state_std"} <= saved.keys():
        raise UserError(
            f"{path} is not {content}: expected a dict model_state, state_mean and "
            "state_std in it; choose another file"
        )
    state_dict = float32_arrays(path, saved["model_state"])
    statistics = {name: saved[name] for name in ("state_mean", "state_std")}
    mean, std = float32_arrays(path, statistics).values()  # CORL's are [1, S]
    try:
        params = params_from_state_dict(state_dict)
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0][:300]}") from None
    size = len(params["state_emb"]["kernel"])
    if not mean.size == std.size == size or std.min() <= 0:
        raise UserError(
            f"{path}: state_mean and state_std are not those of its network: expected "
            f"{size} numbers each, and positive ones in state_std"
        )
    masks = [v for name, v in state_dict.items() if name.endswith(".causal_mask")]
    seq_len = math.isqrt(masks[0].size) // 3 if masks else None  # [3T, 3T]
    return CorlCheckpoint(params, mean.ravel(), std.ravel(), seq_len)


def load(path: Path, overrides: Mapping[str, Any]) -> tuple[PortableAgent, Path]:
    """Return the agent that CORL saved, and the file of its weights.

    Args:
      path: dt_checkpoint.pt or the folder with it. A config.yaml beside it is read.
      overrides: values of configuration keys, instead of those of config.yaml.

    Raises:
      UserError: there is no such file, its config.yaml belongs to another network, or
        a value is given by neither.
    """
    path = path / _CHECKPOINT if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"no {path}: expected the checkpoint of CORL's dt.py")
    saved, config_path = read_checkpoint(path), path.with_name(_CONFIG)
    stated: dict[str, Any] = {"max_action": 1.0}  # in all of D4RL, CORL's data
    if saved.seq_len is not None:
        stated["seq_len"] = saved.seq_len
    if config_path.is_file():
        stated |= read_config(config_path)
    stated |= overrides
    needed = ("num_heads", "reward_scale", "seq_len")
    if flags := " ".join(f"--{key}=..." for key in needed if key not in stated):
        raise UserError(
            f"neither {path} nor a {_CONFIG} beside it has {flags}: give the values of "
            "its training"
        )
    network = saved.network(saved.seq_len or stated["seq_len"])
    config = imported_config(path, network, stated)
    normalizer = saved.normalizer(config["reward_scale"])
    return PortableAgent(saved.params, config, normalizer), path


def read_config(path: Path) -> dict[str, Any]:
    """Return the values of CORL's config.yaml for the keys that dt_jax has too.

    Raises:
      UserError: it is not such a file, or a value is not what its key expects.
    """
    content = f"{path} is not a config.yaml of CORL"
    try:
        values = yaml.safe_load(path.read_text("utf-8", errors="replace"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{content}: {reason}") from None
    keys = {name: key for name, key in keys_of("dt").items() if key.corl}
    if not isinstance(values, dict) or not values.keys() & keys:
        raise UserError(f"{content}: it has none of CORL's keys")
    config = {}
    for name, key in keys.items():
        if name in values:
            value = values[name]
            config[name] = tuple(value) if isinstance(value, list) else value
            key.validate(config[name], f"{path}: {name}")
    return config


def save(folder: Path, agent: PortableAgent) -> PortableAgent:
    """Write dt_checkpoint.pt and config.yaml as CORL's dt.py does.

    Returns:
      The agent as it is written: its actions are in the environment's units, if a
      max_action can express them.

    Raises:
      UserError: PyTorch is not installed, or the network differs from CORL's.
    """
    torch = import_torch(Path(_CHECKPOINT), "corl")
    if agent.config["activation"] != "gelu":
        raise UserError(
            "CORL's network has activation=gelu, but this one has "
            f"{agent.config['activation']}: choose --to=hf or --to=safetensors"
        )
    scale = agent.normalizer.action_scale
    if not agent.normalizer.action_center.any() and (scale == scale[0]).all():
        agent = agent.with_max_action(agent.config["max_action"] * float(scale[0]))
    config, length = agent.config, 3 * agent.config["seq_len"]
    mask = ~np.tri(length, dtype=bool)  # True: not attended to
    arrays = state_dict_from_params(agent.params)
    arrays |= {f"blocks.{i}.causal_mask": mask for i in range(config["num_layers"])}
    saved = {
        "model_state": {name: torch.tensor(array) for name, array in arrays.items()},
        "state_mean": agent.normalizer.state_mean[None],
        "state_std": agent.normalizer.state_std[None],
    }
    # CORL requires NumPy 1, whose name of this module NumPy 2 also reads.
    numpy_1 = {"numpy._core.multiarray": "numpy.core.multiarray"}
    with patch.dict(REVERSE_IMPORT_MAPPING, numpy_1):
        torch.save(saved, folder / _CHECKPOINT, pickle_protocol=2)
    keys = keys_of("dt").items()
    names = [name for name, key in keys if key.corl and name not in LOCAL_KEYS]
    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name in names
        if (value := config[name]) is not None or name == "clip_grad"
    }
    values["deterministic_torch"] = config["deterministic"]
    write_text(folder / _CONFIG, yaml.safe_dump(values, sort_keys=False))
    return agent
