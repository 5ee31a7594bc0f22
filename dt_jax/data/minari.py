"""Minari's datasets, which lie in its own folder as episodes."""

import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dt_jax.data.aligned import aligned_empty
from dt_jax.data.entry_points import check_environments
from dt_jax.data.hdf5 import check_stored
from dt_jax.data.limits import MOST_DEFLATED, check_memory
from dt_jax.data.schema import RawData, check_finite
from dt_jax.utils.errors import UserError

PREFIX = "minari:"  # an env_name that begins so goes on with a dataset's id


class Episode(NamedTuple):
    """An episode of T steps as it was recorded."""

    observations: Any  # [T + 1, S], or a dictionary of such arrays
    actions: np.ndarray  # [T, A]
    rewards: np.ndarray  # [T]
    terminations: np.ndarray  # [T] bool


def open_dataset(env_name: str) -> Any:
    """Return the `minari.MinariDataset` of an `env_name`; a missing one is downloaded.

    Its attribute `env_name` is ours: a folder that was copied or renamed still has its
    first id in its metadata, and errors must not lead the user there.

    Args:
      env_name: "minari:" and the dataset's id, "minari:D4RL/pen/human-v2".

    Raises:
      UserError: Minari is not installed, there is no such dataset and none can be
        fetched, or it can't be read.
    """
    minari = _minari()
    _check_id(env_name)
    if not (_folder(env_name) / "data").exists():
        _download(minari, env_name)
    with _damage_told(env_name):
        _check_metadata(env_name)
        dataset = minari.load_dataset(env_name.removeprefix(PREFIX))
    dataset.env_name = env_name
    return dataset


def episodes(dataset: Any) -> Iterator[Episode]:
    """Yield the episodes of a dataset that `open_dataset` returned.

    Raises:
      UserError: one can't be read, or is not of T actions and T + 1 observations of the
        dataset's spaces.
    """
    name = dataset.env_name
    with _damage_told(name):
        file = _folder(name) / "data/main_data.hdf5"
        if file.exists():  # else it is of Arrow's
            check_stored(file)
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
    """Read all episodes; `timeouts` marks the last row of each, terminated or not.

    Args:
      dataset: what `open_dataset` returned.
      convert: an episode -> observations [T + 1, S], actions [T, A] and rewards [T].

    Raises:
      UserError: an episode can't be read, or a number is NaN or infinite.
    """
    name = dataset.env_name
    raw, start, total = None, 0, dataset.total_steps
    for episode in episodes(dataset):
        observations, actions, rewards = convert(episode)
        if raw is None:
            sizes = observations.shape[1], actions.shape[1]
            check_memory(4 * total * sum(sizes), name)
            raw = _empty(total, *sizes)
        end = start + len(rewards)
        if end > total:
            break
        with np.errstate(over="ignore"):  # found when the numbers are checked
            raw.observations[start:end] = observations[:-1]
            raw.actions[start:end] = actions
            raw.rewards[start:end] = rewards
        raw.terminals[start:end] = episode.terminations
        raw.timeouts[end - 1] = True
        start = end
    if raw is None:
        raise UserError(f"{name} holds no step")
    if end != total:
        raise UserError(f"{name} should have {total} steps and has other; get it again")
    for key in ("observations", "actions", "rewards"):  # as they were converted
        check_finite(getattr(raw, key), f"{name}: {key}")
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
    """Hide warnings: what a dataset was recorded with can't be changed any more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _minari() -> Any:
    if find_spec("minari") is None:
        raise UserError(f"{PREFIX}... needs Minari: pip install 'dt_jax[minari]'")
    return import_module("minari")


def _folder(env_name: str) -> Path:
    """Return where Minari has a dataset, or would have it."""
    root = import_module("minari.storage.datasets_root_dir")
    return root.get_dataset_path(env_name.removeprefix(PREFIX))


def _check_id(env_name: str) -> None:
    """Refuse a path that leads out of Minari's folder."""
    path = Path(env_name.removeprefix(PREFIX))
    if path.is_absolute() or ".." in path.parts:
        raise UserError(
            f"{env_name}: a dataset's id begins with no / and has no .. in it; it is "
            f"looked for in {_folder('')}"
        )


def _download(minari: Any, env_name: str) -> None:
    """Fetch a dataset by Minari's own means into Minari's own folder."""
    dataset_id = env_name.removeprefix(PREFIX)
    try:
        with quiet(), redirect_stdout(sys.stderr):
            minari.download_dataset(dataset_id)
    except Exception as error:  # of the network, of packages that it needs, ...
        remedy = (
            "pip install 'dt_jax[minari]'"
            if isinstance(error, ImportError)
            else f"where there is network, run minari download {dataset_id}, and copy "
            "the folder to there"
        )
        near = _nearest(dataset_id)
        raise UserError(
            f"{env_name} is not at {_folder(env_name)} and could not be downloaded "
            f"({_reason(error)}); {remedy}"
            + (f"; nearest of those that are there: {', '.join(near)}" if near else "")
        ) from None


def _nearest(dataset_id: str) -> list[str]:
    """Return local ids like this one, whatever their capitals.

    By their folders: Minari's list leaves out those that were copied or renamed.
    """
    root = _folder("")
    found = [path.parents[1] for path in root.rglob("data/metadata.json")]
    ids = {(known := str(path.relative_to(root))).lower(): known for path in found}
    return [ids[near] for near in get_close_matches(dataset_id.lower(), ids)]


def _check_metadata(env_name: str) -> None:
    """Refuse what Minari would believe, such as more steps than there are bytes for."""
    folder = _folder(env_name) / "data"
    metadata = json.loads((folder / "metadata.json").read_text())
    size = sum(file.stat().st_size for file in folder.rglob("*"))
    for key, most in ("total_episodes", size), ("total_steps", MOST_DEFLATED * size):
        if not isinstance(count := metadata[key], int) or not 0 <= count <= most:
            raise ValueError(f"{key} is {count!r}, in {size:,} bytes")
        if not count:
            raise UserError(f"{env_name} holds no step: get another")
    for key in ("env_spec", "eval_env_spec"):
        spec = json.loads(metadata.get(key) or "{}")
        if not isinstance(spec.get("kwargs", {}), dict):
            raise ValueError(f"{key} has kwargs that are none")
    if not {"observation_space", "action_space"} <= metadata.keys():
        check_environments(env_name, metadata)  # Minari makes one, to look at it


def _check_episode(episode: Episode, dataset: Any, name: str) -> None:
    """Refuse arrays that differ in length, or are not what the spaces promise."""
    seen, space = episode.observations, dataset.observation_space
    if not isinstance(seen, dict):
        seen, space = {"observations": seen}, {"observations": space}
    steps = len(episode.rewards)
    others = len(episode.actions), len(episode.terminations)
    for key, array in seen.items():
        if len(array) != steps + 1 or others != (steps, steps):
            raise UserError(
                f"{name} has {steps} rewards, {others[0]} actions, {others[1]} "
                f"terminations and {len(array)} {key}; as many of all are needed, and "
                "one observation more"
            )
    parts = [(key, seen[key], space[key].shape) for key in space]
    parts.append(("actions", episode.actions, dataset.action_space.shape))
    parts.append(("rewards", episode.rewards, ()))
    for key, array, shape in parts:
        if array.shape[1:] != shape or array.dtype.kind not in "biuf":
            raise UserError(
                f"{name} has {key} of {array.dtype}, shape {array.shape[1:]} a step; "
                f"numbers of shape {shape} are needed, as metadata.json says"
            )
        check_finite(array, f"{name}: {key}")


def _empty(steps: int, observation_size: int, action_size: int) -> RawData:
    return RawData(
        observations=aligned_empty((steps, observation_size), np.float32),
        actions=aligned_empty((steps, action_size), np.float32),
        rewards=aligned_empty(steps, np.float32),
        terminals=np.zeros(steps, bool),
        timeouts=np.zeros(steps, bool),
    )


@contextmanager
def _damage_told(env_name: str) -> Iterator[None]:
    """Turn what Minari and h5py raise for damaged files, so anything, into one line."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:  # of what reads the kind of file that it is
        raise UserError(f"{env_name} can't be read: {_reason(error)}") from None
    except Exception as error:
        raise UserError(
            f"{env_name} can't be read; get it again into {_folder(env_name)} "
            f"({_reason(error)})"
        ) from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
