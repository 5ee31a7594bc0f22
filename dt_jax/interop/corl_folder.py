"""The folder that CORL's dt.py leaves, both ways: dt_checkpoint.pt and config.yaml."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml

from dt_jax.config.rules import RULES
from dt_jax.interop import torch_files
from dt_jax.interop.corl import read_checkpoint, state_dict_from_params
from dt_jax.interop.interchange import Trained, check_agreement
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import write_text

_FILE, _YAML = "dt_checkpoint.pt", "config.yaml"
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


def load(path: Path, given: Mapping[str, Any]) -> tuple[Trained, Path]:
    """Return the agent that CORL saved, and the file with its weights.

    Args:
      path: that file, or the folder that has it as dt_checkpoint.pt. What it does not
        tell is in the config.yaml beside it.
      given: keys of a configuration, to be as they are here.

    Raises:
      UserError: there is no such file, its config.yaml is of another network, or a key
        is told by neither.
    """
    path = path / _FILE if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"no {path}: expected the {_FILE} that CORL's dt.py saves")
    saved, beside = read_checkpoint(path), path.with_name(_YAML)
    said: dict[str, Any] = {"max_action": 1.0}  # as in all of D4RL, CORL's data
    if beside.is_file():
        said |= read_config(beside)
    said |= given
    if saved.seq_len is not None:
        said.setdefault("seq_len", saved.seq_len)
    needed = ("num_heads", "reward_scale", "seq_len")
    if flags := " ".join(f"--{key}=..." for key in needed if key not in said):
        raise UserError(
            f"neither {path} nor a {_YAML} beside it says {flags}: give what it was "
            "trained with"
        )
    network = saved.network(saved.seq_len or said["seq_len"])
    check_agreement(path, network, said, _YAML)
    return Trained(saved.params, said | network, saved.scaling()), path


class _Plain(yaml.SafeLoader):
    """YAML without references, by which a few lines can stand for a whole memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("a reference (*)")
        return super().compose_node(parent, index)


def read_config(path: Path) -> dict[str, Any]:
    """Return the keys of CORL's config.yaml that are ours too.

    Raises:
      UserError: it is no such file, or a value is not what its key expects.
    """
    try:
        values = yaml.load(path.read_text(errors="replace"), _Plain)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no config.yaml of CORL's: {why}") from None
    if not isinstance(values, dict) or not values.keys() & {*_CONFIG}:
        raise UserError(f"{path} is no config.yaml of CORL's: it has none of its keys")
    said = {}
    for key in (key for key in _CONFIG if key in values):
        value = values[key]
        said[key] = tuple(value) if isinstance(value, list) else value
        if not RULES[key].holds(said[key]):
            shown = " ".join(str(value).split())[:200]
            raise UserError(f"{path}: {key}={shown}: expected {RULES[key].expected}")
    return said


_Pickler: Any = pickle._Pickler  # in Python: that in C can't be told other names


class _Numpy1Pickler(_Pickler):
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
    torch = torch_files.import_torch(Path(_FILE), "to write CORL's files", "corl")
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
    told = (key for key in _CONFIG if config[key] is not None or key == "clip_grad")
    values = {key: config[key] for key in told}
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
    values["deterministic_torch"] = config["deterministic"]
    write_text(folder / _YAML, yaml.safe_dump(values, sort_keys=False))
    return trained
