"""Dataset management: python -m dt_jax data list | info | download | verify | clear."""

import warnings
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from dt_jax.cli.common import CommandParser
from dt_jax.data import minari
from dt_jax.data.cache import cache_folder, cached_files, has_record
from dt_jax.data.d4rl import read_env_name, unpacked_folder
from dt_jax.data.registry import NO_LIMIT, EnvSpec, all_specs, lookup
from dt_jax.datasets import Dataset, cached_path, describe_dataset, read_dataset
from dt_jax.datasets.describe import align_columns, lengths_summary
from dt_jax.utils.backend import compilation_cache_folder
from dt_jax.utils.errors import UserError, did_you_mean
from dt_jax.utils.files import user_path

_SUFFIXES = (".hdf5", ".h5", ".npz")
_D4RL_URL = "http://rail.eecs.berkeley.edu/datasets/offline_rl/"


def main(arguments: Sequence[str]) -> None:
    """Run the subcommand on the command line."""
    args = _parser().parse_args(arguments)
    args.command(args)


def _parser() -> CommandParser:
    parser = CommandParser(
        command="data",
        description="List, describe, download, verify and delete datasets.",
        example="list hopper",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Callable[[Namespace], None], summary: str, example: str
    ) -> CommandParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=f"{summary.capitalize()}.",
            epilog=f"example: python -m dt_jax data {name} {example}",
        )
        added.set_defaults(command=command)
        return added

    hopper = "hopper-medium-v2"
    example = f"my_hopper.hdf5 --env_name={hopper}"
    command = add("list", _list, "list the datasets and where they come from", "hopper")
    command.add_argument(
        "pattern", nargs="?", default="", help="part of the name, with * and ?"
    )
    info = add("info", _info, "describe a dataset", example)
    info.add_argument(
        "--env_name",
        help="environment for scores and action bounds; demo files contain it",
    )
    summary = "download or collect a dataset that is not in the cache"
    command = add("download", _download, summary, hopper)
    command.add_argument("name", help="a name from list, or minari:ID")
    summary = "read a dataset and compare it with its recorded SHA-256"
    verify = add("verify", _verify, summary, hopper)
    command = add("clear", _clear, "delete datasets from the cache folder", hopper)
    command.add_argument(
        "patterns", nargs="*", metavar="NAME", help="a name from list, with * and ?"
    )
    command.add_argument(
        "--all",
        action="store_true",
        help="all datasets, unpacked arrays and compiled programs",
    )
    for reader in (info, verify):
        reader.add_argument(
            "dataset", metavar="NAME_OR_FILE", help="a name from list, or any file"
        )
        reader.add_argument(
            "--episode_len",
            type=_steps,
            help="maximum length of an episode, for a file without episode ends",
        )
        reader.add_argument(
            "--split",
            choices=["corl", "timeouts"],
            default="corl",
            help="where trajectories end: corl (the default) at terminals and "
            "timeouts, timeouts only at timeouts",
        )
    return parser


def _steps(text: str) -> int:
    """Parse "1000", "1_000" or "1e3", like launch.py."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if number.is_integer() and 1 <= number <= NO_LIMIT:
        return int(number)
    raise ArgumentTypeError(f"expected an integer from 1 to {NO_LIMIT}, got {text!r}")


def _list(args: Namespace) -> None:
    """Print a row for each dataset."""
    names = [n for n in all_specs() if fnmatch(n, f"*{args.pattern.lower()}*")]
    if not names:
        raise _unknown(args.pattern)
    rows = [("name", "family", "cached", "size", "url")]
    for name in sorted(names):
        spec = all_specs()[name]
        path = cached_path(spec)
        cached = ("yes", _megabytes(path)) if path.exists() else ("-", "-")
        url = spec.url.removeprefix(_D4RL_URL) if spec.url else "(collected locally)"
        rows.append((name, spec.family, *cached, url))
    print(align_columns(rows, "<<<><"))
    print(f"URLs are relative to {_D4RL_URL}")
    print(f"cache folder: {cache_folder()}")
    for label, folder in _derived_folders().items():
        if files := _files(folder):
            print(f"{label}: {_megabytes(*files)} in {folder}")


def _info(args: Namespace) -> None:
    """Print a summary of a dataset."""
    spec, path = _find(args.dataset)
    data_path = None if spec else str(path)
    if args.env_name is not None:
        if path is None:
            raise UserError(
                f"{args.dataset} has its own environment: remove --env_name"
            )
        data_path, spec = str(path), _environment(args.env_name)
    dataset = _load(spec, data_path, args)
    if path is not None and spec is None:
        spec = all_specs().get(read_env_name(path) or "")
        sizes = dataset.trajectories.sizes
        if spec is not None and sizes != (spec.observation_size, spec.action_size):
            warnings.warn(
                f"{path}: its attribute env_name is {spec.name}, an environment of "
                "other sizes; the file is described without one",
                stacklevel=1,
            )
            spec = None
    print(describe_dataset(dataset, spec))


def _download(args: Namespace) -> None:
    """Download or collect a dataset, check it and print its path."""
    if args.name.startswith(minari.PREFIX):
        folder = Path(minari.open_dataset(args.name).storage.data_path)
        print(f"{folder}, {_megabytes(*folder.iterdir())}")
        return
    if args.name not in all_specs():
        raise _unknown(args.name)
    spec = lookup(args.name)
    path = cached_path(spec)
    existed = path.exists()
    try:
        sha256 = read_dataset(spec, None).sha256
    except UserError as error:
        if not existed:
            raise
        record = f" and {path.name}.sha256" if has_record(path) else ""
        raise UserError(
            f"{error}. To download it again, delete {path}{record} and run python -m "
            f"dt_jax data download {spec.name}"
        ) from error
    print(f"{path}{' already exists' if existed else ''}")
    print(f"{_megabytes(path)}, sha256 {sha256}")


def _verify(args: Namespace) -> None:
    """Read a dataset like training does, and compare it with its recorded SHA-256."""
    spec, path = _find(args.dataset)
    dataset = _load(spec, None if spec else str(path), args)
    print(f"ok: {lengths_summary(dataset.trajectories)}, all numbers finite")
    if path is not None and has_record(path):
        print(f"ok: sha256 {dataset.sha256}, as recorded")
    else:
        print(f"no recorded sha256; it is {dataset.sha256}")


def _clear(args: Namespace) -> None:
    """Delete the cached files of datasets, or everything."""
    if args.all == bool(args.patterns):
        raise UserError("give names of datasets to delete, or --all; see --help")
    files = []
    for pattern in ["*"] if args.all else args.patterns:
        names = [name for name in all_specs() if fnmatch(name, pattern)]
        if not names:
            raise _unknown(pattern)
        files += [f for n in names for f in cached_files(cached_path(lookup(n)))]
    if args.all:
        files += [f for folder in _derived_folders().values() for f in _files(folder)]
    files = list(dict.fromkeys(files))
    size = _megabytes(*files)
    for file in files:
        file.unlink(missing_ok=True)
    print(f"deleted {size} in {len(files)} files")


def _load(spec: EnvSpec | None, data_path: str | None, args: Namespace) -> Dataset:
    return read_dataset(spec, data_path, split=args.split, episode_len=args.episode_len)


def _derived_folders() -> dict[str, Path]:
    """Return the folders of what is derived from datasets and programs."""
    folders = {"unpacked": unpacked_folder()}
    with suppress(UserError):  # without a home folder no programs are kept
        folders["compiled programs"] = compilation_cache_folder()
    return folders


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _find(name: str) -> tuple[EnvSpec | None, Path | None]:
    """Return the dataset of that name, if there is one, and its file, if it has one."""
    if name.startswith(minari.PREFIX):
        return _environment(name), None
    path = user_path(name)
    if name not in all_specs() or path.is_file():
        if path.exists() or path.suffix in _SUFFIXES:
            return None, path  # reading it reports if it is unusable
        raise _unknown(name, "file or dataset")
    spec = lookup(name)
    if not cached_path(spec).exists():
        raise UserError(
            f"{name} is not in {cache_folder()}; download it with "
            f"python -m dt_jax data download {name}"
        )
    return spec, cached_path(spec)


def _unknown(name: str, kind: str = "dataset") -> UserError:
    if name.lower().startswith("minari"):
        hint = "; Minari's are written minari:ID; minari list local shows local ones"
    else:
        hint = did_you_mean(Path(name).stem, all_specs())
        hint += "; python -m dt_jax data list shows all of them"
    return UserError(f"there is no {kind} {name!r}{hint}")


def _environment(env_name: str) -> EnvSpec:
    if env_name in all_specs():
        return lookup(env_name)
    # Imported here because the engines take a second or two to import.
    from dt_jax import envs

    return envs.lookup(env_name)


def _megabytes(*files: Path) -> str:
    return f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"
