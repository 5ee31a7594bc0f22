"""What the formats share: the agent as plain arrays, parameter names, file reading."""

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from dt_jax.config.keys import keys_of
from dt_jax.config.load import default_config, validate
from dt_jax.data.normalizer import Normalizer
from dt_jax.types import Params
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import remove_leftovers, temporary_path

RECORD = "dt_jax.json"  # beside the weights of every export

# Keys of a run's machine and paths: an import has their defaults.
LOCAL_KEYS = (
    "data_path",
    "init_from",
    "checkpoints_path",
    "num_seeds",
    "num_devices",
    "device",
)


@dataclass(frozen=True, eq=False)
class PortableAgent:
    """A trained agent as plain arrays and values, between two programs.

    Attributes:
      params: acting parameters, NumPy; a Decision Transformer's are float32.
      config: every configuration key, as in a checkpoint's record.
      normalizer: the units of the parameters.
    """

    params: Params
    config: Mapping[str, Any]
    normalizer: Normalizer

    def with_max_action(self, max_action: float) -> "PortableAgent":
        """Return an equivalent Decision Transformer with actions within ±max_action.

        The network's actions change their unit: on input, by the weights that embed
        them; on output, by the normaliser's action_scale.
        """
        factor = np.float32(self.config["max_action"] / max_action)
        embedding = dict(self.params["action_emb"])
        embedding["kernel"] = embedding["kernel"] * factor
        return PortableAgent(
            {**self.params, "action_emb": embedding},
            {**self.config, "max_action": float(max_action)},
            replace(
                self.normalizer, action_scale=self.normalizer.action_scale * factor
            ),
        )


# Kind of layer -> our name of PyTorch's "weight", and whether PyTorch has it as
# [out, in] and we as [in, out].
_LAYERS = {
    "embedding": ("embedding", False),
    "linear": ("kernel", True),
    "conv1d": ("kernel", False),
    "norm": ("scale", False),
}


def parameter_names(
    modules: Mapping[str, tuple[str, str]],
    block_modules: Mapping[str, tuple[str, str]],
    block: str,
    num_layers: int,
) -> dict[str, tuple[str, bool]]:
    """Return PyTorch's parameter names -> (our path, whether the array is transposed).

    Args:
      modules: PyTorch's modules outside the blocks -> (our path, a key of `_LAYERS`).
      block_modules: the same for the modules of a block, by their paths inside it.
      block: PyTorch's name of a block with "{}" for its index.
      num_layers: of the network.
    """
    layers = dict(modules)
    for i in range(num_layers):
        for module, (path, kind) in block_modules.items():
            ours = f"transformer/blocks_{i}/{path}"
            layers[f"{block.format(i)}.{module}"] = (ours, kind)
    names = {}
    for module, (path, kind) in layers.items():
        weight, transposed = _LAYERS[kind]
        names[f"{module}.weight"] = (f"{path}/{weight}", transposed)
        if kind != "embedding":
            names[f"{module}.bias"] = (f"{path}/bias", False)
    return names


def to_pytorch(
    params: Params, names: Mapping[str, tuple[str, bool]]
) -> dict[str, np.ndarray]:
    """Return our parameters under PyTorch's names and in its layout."""
    flat = {k: np.asarray(v) for k, v in flatten_dict(params, sep="/").items()}
    return {
        name: np.ascontiguousarray(flat[path].T if transposed else flat[path])
        for name, (path, transposed) in names.items()
    }


def from_pytorch(
    state_dict: Mapping[str, Any], names: Mapping[str, tuple[str, bool]], network: str
) -> dict[str, np.ndarray]:
    """Return arrays by our paths, given PyTorch's names and layout.

    Raises:
      KeyError: a name is missing or unknown.
    """
    if state_dict.keys() != names.keys():
        missing = sorted(names.keys() - state_dict)
        unknown = sorted(state_dict.keys() - names)
        raise KeyError(
            f"not the state_dict of {network}: missing {missing}, unknown {unknown}"
        )
    flat = {}
    for name, (path, transposed) in names.items():
        array = np.asarray(state_dict[name])
        flat[path] = array.T if transposed else array
    return flat


def count_blocks(params: Params) -> int:
    """Return the number of blocks of a Decision Transformer."""
    return sum(name.startswith("blocks_") for name in params["transformer"])


def imported_config(
    source: Path, network: Mapping[str, Any], stated: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a complete configuration: the defaults, updated with a source's values.

    Args:
      source: the file of the weights.
      network: values of keys that follow from the weights.
      stated: values of keys from the configuration beside them, and from flags.

    Raises:
      UserError: the two contradict each other, or a value is not what its key expects.
    """
    differing = [k for k in network if stated.get(k, network[k]) != network[k]]
    if differing:
        theirs = ", ".join(f"{key}={network[key]}" for key in differing)
        ours = ", ".join(f"{key}={stated[key]}" for key in differing)
        raise UserError(
            f"{source} has {theirs}, but its configuration or a flag has {ours[:200]}: "
            "give the configuration of the same run"
        )
    defaults = default_config(
        name="imported",
        group="imported",
        env_name=None,
        target_returns=None,
        lr_schedule="warmup_constant",  # CORL's
    )
    local = {name: keys_of("dt")[name].default for name in LOCAL_KEYS}
    config = ConfigDict({**defaults.to_dict(), **stated, **network, **local})
    try:
        validate(config, trains=False)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    values: dict[str, Any] = config.to_dict()
    return values


def read_json(path: Path) -> dict[str, Any]:
    """Return the entries of a JSON file; raise a UserError if it has none."""
    try:
        values = json.loads(path.read_text(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object, got {str(values)[:100]}")
    return values


def float32_arrays(path: Path, values: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """Return arrays or PyTorch tensors by their names, as finite float32 arrays.

    Raises:
      UserError: a value is not an array of numbers, empty or not finite.
    """
    arrays = {}
    for name, value in values.items():
        try:
            if hasattr(value, "detach"):  # NumPy has no bfloat16
                value = value.detach().float()
            array = np.asarray(value, np.float32)
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"{path}: {name} is not an array of numbers") from None
        if not array.size or not np.isfinite(array).all():
            raise UserError(
                f"{path}: {name} is empty or has NaN or infinity: choose another file"
            )
        arrays[str(name)] = array
    return arrays


def import_torch(path: Path, extra: str) -> Any:
    """Return PyTorch, which `path` needs and an extra of dt_jax installs.

    Raises:
      UserError: it is not installed, or so old that loading could execute code.
    """
    install = f"pip install 'dt_jax[{extra}]'"
    if find_spec("torch") is None:
        raise UserError(f"{path} needs PyTorch: {install}")
    torch = import_module("torch")
    if torch.__version__ < "2.6":  # CVE-2025-32434
        raise UserError(
            f"{path} needs PyTorch 2.6 or newer, because {torch.__version__} could "
            f"execute code from a file: {install}"
        )
    return torch


def load_torch(path: Path, extra: str, content: str) -> dict[Any, Any]:
    """Return the dict of tensors and arrays in a PyTorch file; no code is executed.

    `content` says in error messages what the file should be.

    Raises:
      UserError: PyTorch is missing, or the file is something else or truncated.
    """
    torch = import_torch(path, extra)
    with (
        path.open("rb") as file,
        torch.serialization.safe_globals(_SAFE_GLOBALS),
        warnings.catch_warnings(action="ignore"),  # about pickles of other programs
    ):
        try:
            saved = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # PyTorch raises a dozen kinds
            # Its message is left out: it recommends weights_only=False.
            raise UserError(
                f"{path} is not {content}, or is truncated, or has more than arrays in "
                "it: copy it again, or choose another file"
            ) from error
    if not isinstance(saved, dict):
        raise UserError(f"{path} is not {content}: it has no dict")
    return saved


class _FloatArray(np.ndarray):
    """Stands for numpy.ndarray in a file, which can fill an array but not call this.

    numpy.ndarray(shape, object, bytes) would take the bytes for addresses of objects.
    """

    def __new__(cls, *args: Any) -> "_FloatArray":
        raise TypeError("not allowed in a file")


def _float_dtype(name: str, *_: Any) -> np.dtype:
    """Stand for numpy.dtype in a file: arrays hold floats, never objects."""
    if name not in ("f4", "f8"):
        raise ValueError(name)
    return np.dtype(name)


_reconstruct = np.empty(0).__reduce__()[0]  # NumPy's function that unpickles arrays
# Everything else in a PyTorch file is refused, except its own tensors.
_SAFE_GLOBALS = [
    (_reconstruct, "numpy._core.multiarray._reconstruct"),  # NumPy 2
    (_reconstruct, "numpy.core.multiarray._reconstruct"),  # NumPy 1
    (_FloatArray, "numpy.ndarray"),
    (_float_dtype, "numpy.dtype"),
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
]


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that is renamed to it on success.

    Raises:
      UserError: `path` exists and is not an empty folder.
    """
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} exists: choose another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = temporary_path(path)
    temporary.mkdir()
    try:
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
