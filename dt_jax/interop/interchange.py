"""What all formats of others have in common: an agent as plain arrays and values."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors.numpy import save

from dt_jax.config.load import from_dict, validate
from dt_jax.types import Params
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import temporary_path, write_text

# Beside the weights of each export: what the parameters mean nothing without.
RECORD = "dt_jax.json"

_WEIGHT = {
    "embedding": "embedding",
    "linear": "kernel",
    "conv1d": "kernel",
    "norm": "scale",
}


class Trained(NamedTuple):
    """An agent on its way from one program to another.

    Attributes:
      params: of our network, NumPy, float32.
      config: keys of a configuration and their values, as JSON has them.
      scaling: state_mean and state_std [S], action_center and action_scale [A].
    """

    params: Params
    config: dict[str, Any]
    scaling: dict[str, np.ndarray]

    @property
    def sizes(self) -> tuple[int, int]:
        """S and A."""
        return self.scaling["state_mean"].size, self.scaling["action_center"].size

    def with_max_action(self, max_action: float) -> "Trained":
        """Return the same agent, whose network gives actions within ±max_action.

        The units of its actions change: those that go in, by the weights that embed
        them, and the environment's, by action_scale.
        """
        factor = np.float32(self.config["max_action"] / max_action)
        params = jax.tree.map(np.asarray, self.params)  # the containers are new
        kernel = params["action_emb"]["kernel"]
        params["action_emb"] = params["action_emb"] | {"kernel": kernel * factor}
        scale = self.scaling["action_scale"] * factor
        return Trained(
            params,
            self.config | {"max_action": float(max_action)},
            self.scaling | {"action_scale": scale},
        )


def parameter_names(
    modules: Mapping[str, tuple[str, str]],
) -> dict[str, tuple[str, bool]]:
    """Return PyTorch's name -> (our path, whether the array is transposed).

    Args:
      modules: PyTorch's module -> (our path, kind). An "embedding" has a weight alone.
        A "linear"'s weight is [out, in], a "conv1d"'s [in, out] as ours.
    """
    names = {}
    for module, (path, kind) in modules.items():
        names[f"{module}.weight"] = (f"{path}/{_WEIGHT[kind]}", kind == "linear")
        if kind != "embedding":
            names[f"{module}.bias"] = (f"{path}/bias", False)
    return names


def to_pytorch(
    flat: Mapping[str, np.ndarray], names: Mapping[str, tuple[str, bool]]
) -> dict[str, np.ndarray]:
    """Return arrays by PyTorch's names and in its layout, from ours by their paths."""
    return {
        name: np.ascontiguousarray(flat[path].T if transposed else flat[path])
        for name, (path, transposed) in names.items()
    }


def from_pytorch(
    state_dict: Mapping[str, Any], names: Mapping[str, tuple[str, bool]], whose: str
) -> dict[str, np.ndarray]:
    """Return arrays by our paths, from PyTorch's names and layout.

    Raises:
      KeyError: a name is missing, or one is there that is unknown.
    """
    if state_dict.keys() != names.keys():
        missing = sorted(names.keys() - state_dict)
        unknown = sorted(state_dict.keys() - names)
        raise KeyError(
            f"not the state_dict of {whose}: missing {missing}, unknown {unknown}"
        )
    flat = {}
    for name, (path, transposed) in names.items():
        array = np.asarray(state_dict[name])
        flat[path] = array.T if transposed else array
    return flat


def write_safetensors(
    path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file of arrays by their names."""
    # Not by save_file: what it writes, nobody but its owner may read.
    path.write_bytes(save(arrays, metadata))


def write_record(folder: Path, trained: Trained, about: Mapping[str, Any]) -> None:
    """Write dt_jax.json: configuration, scaling, and `about` the run."""
    record = {
        "config": trained.config,
        **{key: array.tolist() for key, array in trained.scaling.items()},
        **about,
    }
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")


def check_agreement(
    path: Path, network: Mapping[str, Any], said: Mapping[str, Any], where: str
) -> None:
    """Raise a UserError where weights and what is said of them differ.

    Args:
      path: the file of the weights.
      network: keys of a configuration, as the weights tell them.
      said: keys that are told elsewhere.
      where: that is.
    """
    if other := [key for key in network if said.get(key, network[key]) != network[key]]:
        there = ", ".join(f"{key}={network[key]}" for key in other)
        here = ", ".join(f"{key}={said[key]}" for key in other)
        raise UserError(
            f"{path} has {there}, but {where} or a flag says {here[:200]}: they are of "
            "different runs"
        )


def read_record(
    path: Path, state_size: int, action_size: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the configuration and the scaling that a dt_jax.json, or less of one, has.

    Only state_mean and state_std have to be in it. The configuration is empty where
    there is none.

    Raises:
      UserError: an entry is missing, or is none.
    """
    values, scaling = read_json(path), {}
    zeros, ones = [0.0] * action_size, [1.0] * action_size
    values = {"action_center": zeros, "action_scale": ones} | values
    sizes = {
        "state_mean": state_size,
        "state_std": state_size,
        "action_center": action_size,
        "action_scale": action_size,
    }
    for key, size in sizes.items():
        try:
            array = np.asarray(values.get(key), np.float32)
        except (TypeError, ValueError, OverflowError):
            array = np.empty(0, np.float32)
        if array.shape != (size,) or not size or not np.isfinite(array).all():
            raise UserError(f"{path}: expected {size} finite numbers as its {key}")
        if key in ("state_std", "action_scale") and array.min() <= 0:
            raise UserError(f"{path}: a number in {key} is not positive")
        scaling[key] = array
    if "config" not in values:
        return {}, scaling
    try:
        config = from_dict(values["config"])
        validate(config, trains=False)
    except (UserError, TypeError) as error:
        raise UserError(f"{path}: {error}") from None
    return config.to_dict(), scaling


def read_json(path: Path) -> dict[str, Any]:
    """Return the entries of a JSON file; a UserError if it has none."""
    try:
        values = json.loads(path.read_text(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} has no keys: it was never one")
    return values


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which becomes it if all goes well.

    Raises:
      UserError: there is something at `path` already.
    """
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} is there already: choose another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in (each for each in temporary.rglob("*") if each.is_file()):
            with file.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
