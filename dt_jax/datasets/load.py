"""Load the dataset of an `env_name` or a `data_path`; download it if missing."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pooch

from dt_jax.data import minari, registry
from dt_jax.data.cache import (
    cache_folder,
    cache_lock,
    download_folder,
    record_sha256,
    sha256_of,
    verify_sha256,
)
from dt_jax.data.d4rl import read_d4rl, read_env_name
from dt_jax.data.labels import Labels
from dt_jax.data.registry import EnvSpec
from dt_jax.data.trajectories import Trajectories
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import user_path

_HISTOGRAM_BINS = 50
_RETRIES = 2  # of a download
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, eq=False)
class Dataset:
    """Trajectories and their provenance.

    Attributes:
      trajectories: the content.
      source: `data_path` as given, or the file's name in the cache folder; for a demo
        dataset with its name, for a Minari dataset only its name.
      sha256: of the file, in hexadecimal; of a Minari dataset, of its arrays.
      labels: of each seed, in place of the returns-to-go; empty without.
    """

    trajectories: Trajectories
    source: str
    sha256: str
    labels: tuple[Labels, ...] = ()

    def identity(self) -> dict[str, Any]:
        """Return what a run and its checkpoints record about their data."""
        returns = self.trajectories.episode_returns.astype(np.float64)
        # Equal returns need some width, of which 50 parts are numbers apart.
        low, high = returns.min(), returns.max()
        width = 0.0 if low < high else max(0.5, 1e-6 * abs(low))
        counts, edges = np.histogram(
            returns, bins=_HISTOGRAM_BINS, range=(low - width, high + width)
        )
        identity: dict[str, Any] = {
            "source": self.source,
            "sha256": self.sha256,
            "num_transitions": self.trajectories.num_transitions,
            "num_trajectories": self.trajectories.num_trajectories,
            "dropped_tail": self.trajectories.dropped_tail,
            "return_mean": float(returns.mean()),
            "return_best": float(returns.max()),
            "return_histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        }
        if self.labels:
            identity["labels"] = [each.sha256() for each in self.labels]
        return identity


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
    num_choices = spec.action_size if spec and spec.discrete else None
    if spec is not None and data_path is None and spec.name.startswith(minari.PREFIX):
        # Imported here because its engines take a second or two to import.
        from dt_jax.envs import minari_env

        raw, source = minari_env.read(spec.name), spec.label
        sha256 = minari.sha256(raw)
    else:
        path = find_dataset(spec, data_path)
        source = data_path or path.name
        collected_as = read_env_name(path)
        if collected_as is not None and collected_as not in source:
            source += f" ({collected_as})"
        specs = registry.all_specs()
        demo = specs.get(collected_as or "")
        if (
            demo
            and spec
            and spec.name in specs
            and demo.environment != spec.environment
        ):
            raise UserError(
                f"{path} was collected as {collected_as}, in another environment than "
                f"{spec.name}'s; set env_name={collected_as}"
            )
        sha256 = sha256_of(path)
        verify_sha256(path, sha256)
        raw = read_d4rl(
            path,
            episode_len=episode_len,
            num_choices=num_choices,
            memory_limit_gb=memory_limit_gb,
            sha256=sha256,
        )
    trajectories = Trajectories.from_raw(
        raw, source=source, split=split, num_choices=num_choices
    )
    if spec is not None:
        if trajectories.discrete and not spec.discrete:
            raise UserError(
                f"{source} has discrete actions, but those of {spec.name} are "
                "continuous: store them as floats, or set env_name to the environment "
                "of the recording"
            )
        trajectories.check_sizes(spec.observation_size, spec.action_size)
    return Dataset(trajectories, source, sha256)


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
        try:
            download(spec.url, path, check=read_d4rl)
        except UserError as error:
            if (demo := registry.demo_for(spec)) is None:
                raise
            argument = demo.name.removeprefix(f"{demo.family}-")
            raise UserError(
                f"{error}, or train on locally collected data with "
                f"--config=configs/{demo.family}.py:{argument}"
            ) from error
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


def download(url: str, path: Path, check: Callable[[Path], object]) -> None:
    """Download `url` to `path`, which then exists as a whole or not at all.

    The file gets its final name, and `<name>.sha256` beside it, after it has passed
    `check`. If two processes request the same file, the second waits for the first. An
    existing file is kept. A terminal shows a progress bar.

    Args:
      url: http:// or https://.
      path: the final path.
      check: called with the path of the downloaded file; raises a UserError if the file
        is unusable.

    Raises:
      UserError: the download or the check failed.
    """
    folder = download_folder(path)
    with cache_lock(path, "downloading"):
        if path.exists():
            return
        base_url, _, name = url.rpartition("/")
        print(f"downloading {url}", flush=True)
        pooch.get_logger().setLevel("WARNING")  # an error is one line on stderr
        files = pooch.create(
            folder, f"{base_url}/", registry={name: None}, retry_if_failed=_RETRIES
        )
        http = pooch.HTTPDownloader(
            progressbar=sys.stderr.isatty(), chunk_size=_CHUNK_BYTES
        )
        try:
            file = Path(files.fetch(name, downloader=http))
            check(file)
            file.chmod(0o644)  # pooch makes it private, but the cache may be shared
            # The record first: a downloaded file is never without one.
            record_sha256(path, sha256_of(file))
            file.replace(path)
        except (UserError, OSError, ValueError) as error:  # requests raises OSErrors
            reason = " ".join(str(error).split()).replace(f"{folder}/", "")
            raise UserError(
                f"{url}: download failed ({reason}); copy the file to {path}, or set "
                "data_path to another one"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
