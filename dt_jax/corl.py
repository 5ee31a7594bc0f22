"""CORL's PyTorch parameters and ours, both ways; the files that its dt.py saves.

CORL's names are those of `DecisionTransformer.state_dict()` in its
`algorithms/offline/dt.py`. Its matrices are [out, in], ours [in, out]; its attention's
in-projection stacks q, k and v, and so does ours.
"""

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import yaml
from flax.traverse_util import flatten_dict, unflatten_dict

from dt_jax import torch_files
from dt_jax.errors import UserError
from dt_jax.files import write_text
from dt_jax.interchange import Trained, from_pytorch, parameter_names, to_pytorch
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
# The keys of CORL's config.yaml that are ours as well.
_CONFIG = (
    "project",
    "group",
    "name",
    "embedding_dim",
    "num_layers",
    "num_heads",
    "seq_len",
    "episode_len",
    "attention_dropout",
    "residual_dropout",
    "embedding_dropout",
    "max_action",
    "env_name",
    "learning_rate",
    "betas",
    "weight_decay",
    "clip_grad",
    "batch_size",
    "update_steps",
    "warmup_steps",
    "reward_scale",
    "num_workers",
    "target_returns",
    "eval_episodes",
    "eval_every",
    "train_seed",
    "eval_seed",
)
_FILE, _YAML = "dt_checkpoint.pt", "config.yaml"
_READING = "to read CORL's files"


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

    def scaling(self) -> dict[str, np.ndarray]:
        """Return what brings data into the network's units; CORL's actions are raw."""
        action_size = self.params["action_head"]["bias"].size
        return {
            "state_mean": self.state_mean,
            "state_std": self.state_std,
            "action_center": np.zeros(action_size, np.float32),
            "action_scale": np.ones(action_size, np.float32),
        }


def read_checkpoint(path: Path) -> CorlCheckpoint:
    """Read the `dt_checkpoint.pt` that CORL's dt.py saves; nothing in it is run.

    Raises:
      UserError: PyTorch is not installed, or the file is no such checkpoint, not whole,
        or has numbers in it that are not finite.
    """
    torch = torch_files.import_torch(path, _READING, "corl")
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


def load(path: Path, given: Mapping[str, Any]) -> Trained:
    """Return the agent that CORL saved, by the config.yaml beside its file.

    Args:
      path: the file, or the folder that has it as dt_checkpoint.pt.
      given: keys of a configuration, to be as they are here.

    Raises:
      UserError: there is no such file, its config.yaml is of another network, or a key
        is told by neither.
    """
    path = path / _FILE if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"no {path}: expected the {_FILE} that CORL's dt.py saves")
    saved, beside = read_checkpoint(path), path.with_name(_YAML)
    said = read_config(beside) if beside.is_file() else {"max_action": 1.0}
    said |= given
    if saved.seq_len is not None:
        said = {"seq_len": saved.seq_len} | said
    needed = ("num_heads", "reward_scale", "seq_len")
    if flags := " ".join(f"--{key}=..." for key in needed if key not in said):
        raise UserError(
            f"neither {path} nor a {_YAML} beside it says {flags}: give what it was "
            "trained with"
        )
    network = saved.network(saved.seq_len or said["seq_len"])
    if other := [key for key in network if said.get(key, network[key]) != network[key]]:
        there = ", ".join(f"{key}={network[key]}" for key in other)
        here = ", ".join(f"{key}={said[key]}" for key in other)
        raise UserError(
            f"{path} has {there}, and {here} is what {_YAML} or a flag says: they are "
            "of different runs"
        )
    return Trained(saved.params, said | network, saved.scaling())


class _Plain(yaml.SafeLoader):
    """YAML without references, by which a few lines can stand for a whole memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("a reference (*)")
        return super().compose_node(parent, index)


def read_config(path: Path) -> dict[str, Any]:
    """Return the keys of CORL's config.yaml that are ours too; not yet checked.

    Raises:
      UserError: it is no such file.
    """
    try:
        values = yaml.load(path.read_text(errors="replace"), _Plain)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no config.yaml of CORL's: {why}") from None
    if not isinstance(values, dict) or not values.keys() & {*_CONFIG}:
        raise UserError(f"{path} is no config.yaml of CORL's: it has none of its keys")
    return {
        key: tuple(values[key]) if isinstance(values[key], list) else values[key]
        for key in _CONFIG
        if key in values
    }


class _Numpy1Pickler(pickle._Pickler):
    """Names NumPy's function as NumPy 1 does, which CORL requires; 2 knows both."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj.__module__ != "numpy._core.multiarray":
            super().save_global(obj, name)
            return
        self.write(b"cnumpy.core.multiarray\n_reconstruct\n")  # protocol 2
        self.memoize(obj)


def save(folder: Path, trained: Trained) -> Trained:
    """Write dt_checkpoint.pt and config.yaml as CORL's dt.py does.

    Returns:
      The agent as it is there: with the actions in the environment's units, if a
      max_action can make them so.

    Raises:
      UserError: PyTorch is not installed, or the network is none of CORL's.
    """
    path, config = folder / _FILE, trained.config
    torch = torch_files.import_torch(folder, "to write CORL's files", "corl")
    if config["activation"] != "gelu":
        raise UserError(
            f"CORL's network has activation=gelu, and this one "
            f"{config['activation']}: give --to=hf or --to=safetensors"
        )
    scale = trained.scaling["action_scale"]
    if not trained.scaling["action_center"].any() and (scale == scale[0]).all():
        trained = trained.with_max_action(config["max_action"] * float(scale[0]))
        config = trained.config
    length = 3 * config["seq_len"]
    mask = ~np.tri(length, dtype=bool)  # True: not to be looked at
    arrays = state_dict_from_params(trained.params)
    arrays |= {f"blocks.{i}.causal_mask": mask for i in range(config["num_layers"])}
    saved = {
        "model_state": {name: torch.tensor(array) for name, array in arrays.items()},
        "state_mean": trained.scaling["state_mean"][None],
        "state_std": trained.scaling["state_std"][None],
    }
    pickler = SimpleNamespace(__name__="pickle", Pickler=_Numpy1Pickler)
    torch.save(saved, path, pickle_module=pickler, pickle_protocol=2)
    values = {key: config[key] for key in _CONFIG if config[key] is not None}
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
    values["deterministic_torch"] = config["deterministic"]
    write_text(folder / _YAML, yaml.safe_dump(values, sort_keys=False))
    return trained
