"""Minari's datasets, which lie in its own folder as episodes."""

import hashlib
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

from dt_jax.data.schema import RawData, check_finite
from dt_jax.errors import UserError

PREFIX = "minari:"  # an env_name that begins so goes on with a dataset's id

# What Minari and h5py raise for a file that is damaged or lacks something.
_DAMAGED = (OSError, KeyError, RuntimeError, TypeError, ValueError, AssertionError)


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
    if not (_folder(env_name) / "data").exists():
        _download(minari, env_name)
    try:
        dataset = minari.load_dataset(env_name.removeprefix(PREFIX))
    except ImportError as error:  # of what reads the kind of file that it is
        raise UserError(f"{env_name} can't be read: {_reason(error)}") from None
    except _DAMAGED as error:
        raise _unreadable(env_name, error) from None
    dataset.env_name = env_name
    return dataset


def episodes(dataset: Any) -> Iterator[Episode]:
    """Yield the episodes of a dataset that `open_dataset` returned.

    Raises:
      UserError: one can't be read, or is not of T actions and T + 1 observations.
    """
    name = dataset.env_name
    try:
        for found in dataset.iterate_episodes():
            episode = Episode(
                found.observations,
                np.asarray(found.actions),
                np.asarray(found.rewards).reshape(-1),
                np.asarray(found.terminations, bool).reshape(-1),
            )
            _check_lengths(episode, f"{name}: episode {found.id}")
            if len(episode.rewards):
                yield episode
    except _DAMAGED as error:
        raise _unreadable(name, error) from None


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
            raw = _empty(total, observations.shape[1], actions.shape[1])
        widths = observations.shape[1:], actions.shape[1:]
        if widths != (raw.observations.shape[1:], raw.actions.shape[1:]):
            raise UserError(f"{name}: not all episodes have observations of one size")
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
    for key in ("observations", "actions", "rewards"):
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


def _check_lengths(episode: Episode, name: str) -> None:
    seen = episode.observations
    parts = seen if isinstance(seen, dict) else {"observations": seen}
    steps = len(episode.rewards)
    others = len(episode.actions), len(episode.terminations)
    for key, array in parts.items():
        if len(array) != steps + 1 or others != (steps, steps):
            raise UserError(
                f"{name} has {steps} rewards, {others[0]} actions, {others[1]} "
                f"terminations and {len(array)} {key}; as many of all are needed, and "
                "one observation more"
            )


def _empty(steps: int, observation_size: int, action_size: int) -> RawData:
    return RawData(
        observations=np.empty((steps, observation_size), np.float32),
        actions=np.empty((steps, action_size), np.float32),
        rewards=np.empty(steps, np.float32),
        terminals=np.zeros(steps, bool),
        timeouts=np.zeros(steps, bool),
    )


def _unreadable(env_name: str, error: Exception) -> UserError:
    return UserError(
        f"{env_name} can't be read; get it again into {_folder(env_name)} "
        f"({_reason(error)})"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
