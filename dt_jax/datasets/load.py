"""From an `env_name` or a `data_path` to the dataset it stands for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dt_jax.data import minari, registry
from dt_jax.data.cache import alone_with, cache_folder, sha256_of, verify_sha256
from dt_jax.data.d4rl import read_d4rl, read_env_name
from dt_jax.data.registry import EnvSpec
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets.download import download
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import user_path

_BINS = 50  # of the histogram of returns


@dataclass(frozen=True, eq=False)
class Dataset:
    """Trajectories, and what tells one file of them from another.

    Attributes:
      trajectories: what is in the file.
      source: `data_path` as given, or the file's name in the cache folder; with the
        name of the demo dataset that the file holds, if it is one. Of a Minari
        dataset its name.
      sha256: of the file, in hexadecimal; of a Minari dataset, of its arrays.
    """

    trajectories: Trajectories
    source: str
    sha256: str

    def identity(self) -> dict[str, Any]:
        """Return what a run and its checkpoints record of their data."""
        returns = self.trajectories.episode_returns.astype(np.float64)
        counts, edges = np.histogram(returns, bins=_BINS)
        return {
            "source": self.source,
            "sha256": self.sha256,
            "num_transitions": self.trajectories.num_transitions,
            "num_trajectories": self.trajectories.num_trajectories,
            "dropped_tail": self.trajectories.dropped_tail,
            "return_mean": float(self.trajectories.episode_returns.mean()),
            "return_best": float(self.trajectories.episode_returns.max()),
            "return_histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        }


def load(
    spec: EnvSpec | None,
    data_path: str | None,
    *,
    episode_len: int | None = None,
    split: str = "corl",
    memory_limit_gb: float | None = None,
) -> Dataset:
    """Find the file, read it and hold it against the environment.

    Args:
      spec: the environment it must fit; with None its sizes are not checked.
      data_path: any local file; with None, the dataset that `spec` is.
      episode_len: where an episode is cut off, in a file that does not say.
      split: where trajectories end, see `Trajectories.from_raw`.
      memory_limit_gb: more than this stays on the disk, see `read_d4rl`.

    Raises:
      UserError: there is no such dataset, or its file is of no use.
    """
    if spec is not None and data_path is None and spec.name.startswith(minari.PREFIX):
        # Only here: the engines behind it take a second or two to import.
        from dt_jax.envs import minari_env

        raw, source = minari_env.read(spec.name), spec.label
        sha256 = minari.sha256(raw)
    else:
        path = find(spec, data_path)
        source = data_path or path.name
        collected_as = read_env_name(path)
        if spec is not None and collected_as not in (None, spec.name):
            _check_demo(path, str(collected_as), spec, was_named=data_path is not None)
        if collected_as is not None and collected_as not in source:
            source += f" ({collected_as})"
        sha256 = sha256_of(path)
        verify_sha256(path, sha256)
        raw = read_d4rl(
            path,
            episode_len=episode_len,
            memory_limit_gb=memory_limit_gb,
            sha256=sha256,
        )
    trajectories = Trajectories.from_raw(raw, source=source, split=split)
    if spec is not None:
        trajectories.check_sizes(spec.observation_size, spec.action_size)
    return Dataset(trajectories, source, sha256)


def _check_demo(path: Path, name: str, spec: EnvSpec, was_named: bool) -> None:
    """Refuse a demo dataset in the place of D4RL's, or of another environment."""
    if not was_named:
        raise UserError(
            f"{path} is no file of {spec.name}: it was collected as {name}; take it "
            "away, and name it by data_path to train on it"
        )
    known = registry.all_specs()
    elsewhere = name in known and known[name].environment != spec.environment
    if elsewhere and spec.name in known:
        raise UserError(
            f"{path} was collected as {name}, in another environment than "
            f"{spec.name}'s; give env_name={name}"
        )


def find(spec: EnvSpec | None, data_path: str | None) -> Path:
    """Return the file to read; a missing one of `spec` is made or downloaded.

    Raises:
      UserError: neither is given, `spec` has no data, or the download fails.
    """
    if data_path is not None:
        return user_path(data_path)
    if spec is None:
        raise UserError("no data: give env_name or data_path")
    path = cached_path(spec)
    if path.exists():
        return path
    if spec.url is not None:
        _download(spec, spec.url, path)
    elif spec.is_demo:
        _collect(spec, path)
    else:
        raise UserError(f"no data comes with {spec.name}: give data_path")
    return path


def is_at_hand(spec: EnvSpec, data_path: str | None) -> bool:
    """Tell whether the data can be read without a download or collecting it."""
    if data_path is not None or spec.name.startswith(minari.PREFIX):
        return True  # Minari has brought its data with the description
    return cached_path(spec).exists()


def cached_path(spec: EnvSpec) -> Path:
    """Return where the file of a dataset of D4RL's or a demo one is, or would be."""
    name = spec.url.rsplit("/", 1)[-1] if spec.url else f"{spec.name}.hdf5"
    return cache_folder() / name


def _collect(spec: EnvSpec, path: Path) -> None:
    """Collect a demo dataset; where another process does so already, wait for it."""
    with alone_with(path, "collecting"):
        if not path.exists():
            # Only here: the engines behind it take a second or two to import.
            from dt_jax.datasets.demo import collect_demo

            collect_demo(spec.name, path)


def _download(spec: EnvSpec, url: str, path: Path) -> None:
    """Fetch D4RL's file; where that fails, name what could be trained on instead."""
    try:
        download(url, path, check=read_d4rl)
    except UserError as error:
        demo = registry.demo_for(spec)
        if demo is None:
            raise
        argument = demo.name.removeprefix(f"{demo.family}-")
        raise UserError(
            f"{error}; or train on data that is collected here, with "
            f"--config=configs/{demo.family}.py:{argument}"
        ) from None
