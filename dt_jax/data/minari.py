"""Minari's datasets: episodes in Minari's own folder."""

import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dt_jax.data.arrays import check_finite
from dt_jax.data.discrete import check_choices
from dt_jax.data.hdf5 import check_self_contained, open_hdf5
from dt_jax.data.rounding import Rounding
from dt_jax.data.schema import MATRICES, NUMBERS, RawData
from dt_jax.utils.errors import UserError

PREFIX = "minari:"  # an env_name of a Minari dataset: this, and the dataset's id
FARAMA_PACKAGES = "gymnasium", "gymnasium_robotics"


class Episode(NamedTuple):
    """An episode of T steps as it was recorded."""

    observations: Any  # [T + 1, S], or a dictionary of such arrays
    actions: np.ndarray  # [T, A]
    rewards: np.ndarray  # [T]
    terminations: np.ndarray  # [T] bool


def open_dataset(env_name: str) -> Any:
    """Open a dataset as a `minari.MinariDataset`; download it if it is missing.

    The attribute `env_name` is added for error messages: a folder that was copied or
    renamed still has its first id in its metadata.

    Args:
      env_name: "minari:" and the dataset's id, "minari:D4RL/pen/human-v2".

    Raises:
      UserError: Minari is not installed, or the dataset does not exist, cannot be
        downloaded or cannot be read.
    """
    if find_spec("minari") is None:
        raise UserError(f"{PREFIX}... needs Minari: pip install 'dt_jax[minari]'")
    minari = import_module("minari")
    path = Path(env_name.removeprefix(PREFIX))
    if path.is_absolute() or ".." in path.parts:
        raise UserError(
            f"{env_name}: a dataset id must not begin with / or contain ..; it is "
            f"relative to {_folder('')}"
        )
    if not (_folder(env_name) / "data").exists():
        _download(minari, env_name)
    with _corrupt_dataset_errors(env_name):
        metadata = json.loads((_folder(env_name) / "data/metadata.json").read_bytes())
        if metadata["total_episodes"] < 1 or metadata["total_steps"] < 1:
            raise UserError(f"{env_name} contains no steps; use another dataset")
        if not {"observation_space", "action_space"} <= metadata.keys():
            check_environments(env_name, metadata)  # Minari builds one to get them
        dataset = minari.load_dataset(env_name.removeprefix(PREFIX))
    dataset.env_name = env_name
    return dataset


def check_environments(env_name: str, metadata: dict[str, Any]) -> None:
    """Refuse environments and wrappers of unknown packages: building one runs its code.

    Known are environment classes of Gymnasium and Gymnasium-Robotics, and what the user
    has registered or imported. No other package is imported.

    Args:
      env_name: the dataset, for the error message.
      metadata: the dataset's.

    Raises:
      UserError: the dataset names something else.
    """
    for key in ("env_spec", "eval_env_spec"):
        spec = json.loads(metadata.get(key) or "{}")
        for part in (spec, *(spec.get("additional_wrappers") or ())):
            if "entry_point" in part and not _is_known(str(part["entry_point"])):
                raise UserError(
                    f"{env_name}: the environment or wrapper {part['entry_point']} is "
                    "unknown and is not called; if you trust it, import its package in "
                    "a file that --agents=FILE.py names, else remove env_spec and "
                    "eval_env_spec from its metadata.json"
                )


def _is_known(entry_point: str) -> bool:
    from gymnasium import Env, registry

    if any(entry_point == spec.entry_point for spec in registry.values()):
        return True
    module, _, name = entry_point.partition(":")
    try:
        if module.partition(".")[0] in FARAMA_PACKAGES:
            import_module(module)
    except ImportError:
        return True  # building the environment reports the missing package
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and issubclass(found, Env)


def episodes(dataset: Any) -> Iterator[Episode]:
    """Yield the episodes of a dataset that `open_dataset` returned.

    Raises:
      UserError: an episode cannot be read, or does not consist of T actions and T + 1
        observations that match the dataset's spaces.
    """
    name = dataset.env_name
    with _corrupt_dataset_errors(name):
        path = _folder(name) / "data/main_data.hdf5"
        if path.exists():  # otherwise the dataset is in Arrow files
            with open_hdf5(path) as file:
                check_self_contained(file, name)
        for found in dataset.iterate_episodes():
            episode = Episode(
                found.observations,
                np.asarray(found.actions),
                np.asarray(found.rewards).reshape(-1),
                np.asarray(found.terminations, bool).reshape(-1),
            )
            _check_episode(episode, dataset, f"{name}: episode {found.id}")
            if len(episode.rewards):
                yield episode


def read(
    dataset: Any,
    convert: Callable[[Episode], tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> RawData:
    """Read all episodes; `timeouts` is set in the last row of each, terminated or not.

    Args:
      dataset: the result of `open_dataset`.
      convert: an episode -> observations [T + 1, S], actions [T, A], or choices [T],
        and rewards [T].

    Raises:
      UserError: an episode cannot be read, or a number is NaN or infinite.
    """
    name, total = dataset.env_name, dataset.total_steps
    discrete = dataset.action_space.shape == ()
    parts, rounding = [], (Rounding(), Rounding())
    for episode in episodes(dataset):
        observations, *others = convert(episode)
        matrices = (observations,) if discrete else (observations, others[0])
        for seen, array in zip(rounding, matrices, strict=False):
            seen.add(array)
        with np.errstate(over="ignore"):  # check_finite finds overflows
            numbers = [
                array.astype(np.float32) for array in (observations[:-1], *others)
            ]
        steps = len(episode.rewards)
        parts.append((*numbers, episode.terminations, np.arange(steps) == steps - 1))
    recorded = sum(len(part[-1]) for part in parts)
    if not parts or recorded != total:
        raise UserError(
            f"{name} announces {total} steps, but has {recorded}; download it again"
        )
    raw = RawData(*map(np.concatenate, zip(*parts, strict=True)))
    for key in NUMBERS:
        check_finite(getattr(raw, key), f"{name}: {key}")
    if discrete:
        num_choices = int(dataset.action_space.n)
        choices = check_choices(raw.actions, f"{name}: actions", num_choices)
        raw = raw._replace(actions=choices)
    for key, seen in zip(MATRICES, rounding, strict=True):
        seen.check(f"{name}: {key}")
    return raw


def sha256(raw: RawData) -> str:
    """Return the SHA-256 of the arrays, in hexadecimal."""
    digest = hashlib.sha256()
    for key, array in raw._asdict().items():
        digest.update(f"{key} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings about how a dataset was recorded, which the user cannot change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _folder(env_name: str) -> Path:
    """Return the folder of a dataset, which may not exist."""
    root = import_module("minari.storage.datasets_root_dir")
    return root.get_dataset_path(env_name.removeprefix(PREFIX))


def _download(minari: Any, env_name: str) -> None:
    """Download a dataset with Minari into Minari's folder."""
    dataset_id = env_name.removeprefix(PREFIX)
    try:
        with quiet(), redirect_stdout(sys.stderr):
            minari.download_dataset(dataset_id)
    except Exception as error:  # network, missing packages, ...
        remedy = f"run minari download {dataset_id} on a machine with network access "
        remedy += "and copy the folder"
        if isinstance(error, ImportError):
            remedy = "pip install 'dt_jax[minari]'"
        raise UserError(
            f"{env_name} is not in {_folder(env_name)} and could not be downloaded "
            f"({_reason(error)}); {remedy}"
        ) from error


def _check_episode(episode: Episode, dataset: Any, name: str) -> None:
    """Refuse arrays that differ in length or do not match the dataset's spaces."""
    observed, space = episode.observations, dataset.observation_space
    if not isinstance(observed, dict):
        observed, space = {"observations": observed}, {"observations": space}
    steps = len(episode.rewards)
    others = len(episode.actions), len(episode.terminations)
    for key, array in observed.items():
        if len(array) != steps + 1 or others != (steps, steps):
            raise UserError(
                f"{name} has {steps} rewards, {others[0]} actions, {others[1]} "
                f"terminations and {len(array)} {key}; expected equal numbers, and one "
                "observation more"
            )
    arrays = [(key, observed[key], space[key].shape) for key in space]
    arrays.append(("actions", episode.actions, dataset.action_space.shape))
    arrays.append(("rewards", episode.rewards, ()))
    for key, array, shape in arrays:
        if array.shape[1:] != shape or array.dtype.kind not in "biuf":
            raise UserError(
                f"{name} has {key} of dtype {array.dtype} and shape {array.shape[1:]} "
                f"per step; metadata.json announces numbers of shape {shape}"
            )
        check_finite(array, f"{name}: {key}")


@contextmanager
def _corrupt_dataset_errors(env_name: str) -> Iterator[None]:
    """Convert what Minari and h5py raise for corrupt files into a UserError."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:  # a package for this kind of file is missing
        raise UserError(f"{env_name} cannot be read: {_reason(error)}") from error
    except Exception as error:
        if "unable to lock file" in str(error):  # by Minari
            raise UserError(
                f"{env_name}: {_folder(env_name)} is in use by another program, or its "
                "file system has no locks: close the dataset there, or set the "
                "environment variable HDF5_USE_FILE_LOCKING=FALSE"
            ) from error
        raise UserError(
            f"{env_name} cannot be read ({_reason(error)}); download it again into "
            f"{_folder(env_name)}"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
