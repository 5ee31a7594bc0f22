"""Load the dataset of an `env_name` or a `data_path`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dt_jax.data import minari, registry
from dt_jax.data.cache import cache_folder, cache_lock, sha256_of, verify_sha256
from dt_jax.data.d4rl import read_d4rl, read_env_name
from dt_jax.data.registry import EnvSpec
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets.download import download
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import user_path

_HISTOGRAM_BINS = 50


@dataclass(frozen=True, eq=False)
class Dataset:
    """Trajectories and their provenance.

    Attributes:
      trajectories: the content.
      source: `data_path` as given, or the file's name in the cache folder; for a demo
        dataset with its name, for a Minari dataset only its name.
      sha256: of the file, in hexadecimal; of a Minari dataset, of its arrays.
    """

    trajectories: Trajectories
    source: str
    sha256: str

    def identity(self) -> dict[str, Any]:
        """Return what a run and its checkpoints record about their data."""
        returns = self.trajectories.episode_returns.astype(np.float64)
        counts, edges = np.histogram(returns, bins=_HISTOGRAM_BINS)
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


def load_dataset(
    name_or_path: str,
    *,
    episode_len: int | None = None,
    split: str = "corl",
    memory_limit_gb: float | None = None,
) -> Dataset:
    """Return a dataset by its name, or from a file.

    Args:
      name_or_path: a D4RL or demo dataset, which is downloaded or collected if it is
        missing; "minari:" and a Minari dataset; or an HDF5 or .npz file.
      episode_len: see `read_dataset`.
      split: see `read_dataset`.
      memory_limit_gb: see `read_dataset`.

    Raises:
      UserError: there is no such dataset, or its file is unusable.
    """
    # Imported here because its engines take a second or two to import.
    from dt_jax import envs

    is_file = user_path(name_or_path).suffix in (".hdf5", ".h5", ".npz")
    return read_dataset(
        None if is_file else envs.lookup(name_or_path),
        name_or_path if is_file else None,
        episode_len=episode_len,
        split=split,
        memory_limit_gb=memory_limit_gb,
    )


def read_dataset(
    spec: EnvSpec | None,
    data_path: str | None,
    *,
    episode_len: int | None = None,
    split: str = "corl",
    memory_limit_gb: float | None = None,
) -> Dataset:
    """Find the file, read it and validate it against the environment.

    Args:
      spec: the environment; None skips the validation.
      data_path: a local file; None for the dataset of `spec`, which is downloaded or
        collected if it is missing.
      episode_len: maximum length of an episode, for a file without episode ends.
      split: where trajectories end, see `Trajectories.from_raw`.
      memory_limit_gb: larger data is memory-mapped, see `read_d4rl`.

    Raises:
      UserError: there is no such dataset, or its file is unusable.
    """
    if spec is not None and data_path is None and spec.name.startswith(minari.PREFIX):
        # Imported here because its engines take a second or two to import.
        from dt_jax.envs import minari_env

        raw, source = minari_env.read(spec.name), spec.label
        sha256 = minari.sha256(raw)
    else:
        path = find_dataset(spec, data_path)
        source = data_path or path.name
        collected_as = read_env_name(path)
        if collected_as is not None:
            if spec is not None and collected_as != spec.name:
                _check_demo(path, collected_as, spec, in_cache=data_path is None)
            if collected_as not in source:
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


def _check_demo(path: Path, name: str, spec: EnvSpec, in_cache: bool) -> None:
    """Refuse a demo dataset in place of D4RL's, or of another environment."""
    if in_cache:
        raise UserError(
            f"{path} should contain {spec.name}, but was collected as {name}; move it "
            "away, and set data_path to train on it"
        )
    specs = registry.all_specs()
    environment = specs[name].environment if name in specs else spec.environment
    if environment != spec.environment and spec.name in specs:
        raise UserError(
            f"{path} was collected as {name}, in another environment than "
            f"{spec.name}'s; set env_name={name}"
        )


def find_dataset(spec: EnvSpec | None, data_path: str | None) -> Path:
    """Return the file to read; download or collect the dataset of `spec` if missing.

    Raises:
      UserError: neither argument is given, `spec` has no data, or the download failed.
    """
    if data_path is not None:
        return user_path(data_path)
    if spec is None:
        raise UserError("no data: set env_name or data_path")
    path = cached_path(spec)
    if path.exists():
        return path
    if spec.url is not None:
        _download(spec, spec.url, path)
    elif spec.is_demo:
        with cache_lock(path, "collecting"):
            if not path.exists():
                # Imported here because its engines take a second or two to import.
                from dt_jax.datasets.demo import collect_demo

                collect_demo(spec.name, path)
    else:
        raise UserError(f"{spec.name} comes without data: set data_path")
    return path


def is_cached(spec: EnvSpec, data_path: str | None) -> bool:
    """Return whether the data can be read without downloading or collecting it."""
    if data_path is not None or spec.name.startswith(minari.PREFIX):
        return True  # a Minari dataset was downloaded to get its description
    return cached_path(spec).exists()


def cached_path(spec: EnvSpec) -> Path:
    """Return the path in the cache folder of a D4RL or demo dataset."""
    name = spec.url.rsplit("/", 1)[-1] if spec.url else f"{spec.name}.hdf5"
    return cache_folder() / name


def _download(spec: EnvSpec, url: str, path: Path) -> None:
    """Download D4RL's file; if that fails, suggest a demo dataset."""
    try:
        download(url, path, check=read_d4rl)
    except UserError as error:
        demo = registry.demo_for(spec)
        if demo is None:
            raise
        argument = demo.name.removeprefix(f"{demo.family}-")
        raise UserError(
            f"{error}, or train on locally collected data with "
            f"--config=configs/{demo.family}.py:{argument}"
        ) from error
