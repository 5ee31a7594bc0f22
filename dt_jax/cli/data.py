"""Datasets here: python -m dt_jax data list | info | download | verify | clear."""

import shutil
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from dt_jax.cli.common import CommandParser
from dt_jax.data import minari
from dt_jax.data.cache import cache_folder, is_recorded, kept_with
from dt_jax.data.d4rl import read_env_name, unpacked_folder
from dt_jax.data.registry import NO_LIMIT, EnvSpec, all_specs, lookup
from dt_jax.datasets import load as datasets
from dt_jax.datasets.describe import aligned, describe, lengths_line
from dt_jax.utils.backend import compilation_cache_folder as compiled_folder
from dt_jax.utils.errors import UserError, did_you_mean
from dt_jax.utils.files import user_path

_SUFFIXES = (".hdf5", ".h5", ".npz")
_D4RL = "http://rail.eecs.berkeley.edu/datasets/offline_rl/"
_COLLECTED = "(collected here)"  # in the place of a url


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says."""
    args = _parser().parse_args(arguments)
    args.command(args)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m dt_jax data",
        description="What datasets there are, what is in them, and how to get them.",
        epilog="example: python -m dt_jax data list hopper",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Callable[[Namespace], None], does: str, example: str
    ) -> CommandParser:
        added = commands.add_parser(
            name,
            help=does,
            description=f"{does.capitalize()}.",
            epilog=f"example: python -m dt_jax data {name} {example}",
        )
        added.set_defaults(command=command)
        return added

    listing = add("list", _list, "name the datasets and where they come from", "hopper")
    listing.add_argument(
        "pattern",
        nargs="?",
        default="",
        help="a part of the name; * and ? stand for any",
    )
    info = add(
        "info",
        _info,
        "describe what is in a dataset",
        "my_hopper.hdf5 --env_name=hopper-medium-v2",
    )
    info.add_argument(
        "--env_name",
        help="whose scores and bounds of actions; our demo files say it themselves",
    )
    fetch = add(
        "download",
        _download,
        "download or collect a dataset, unless it is there",
        "hopper-medium-v2",
    )
    fetch.add_argument("name", help="one that list names, or minari:ID")
    verify = add(
        "verify",
        _verify,
        "read all of a dataset and compare it with its recorded sha256",
        "hopper-medium-v2",
    )
    clear = add(
        "clear", _clear, "delete datasets from the cache folder", "hopper-medium-v2"
    )
    clear.add_argument(
        "patterns",
        nargs="*",
        metavar="NAME",
        help="of datasets that list names; * and ? stand for any",
    )
    clear.add_argument(
        "--all",
        action="store_true",
        help="all of them, what was unpacked to be mapped, and compiled programs",
    )
    _add_reading(info)
    _add_reading(verify)
    return parser


def _add_reading(parser: CommandParser) -> None:
    parser.add_argument(
        "dataset", metavar="NAME_OR_FILE", help="in the cache folder, or any file"
    )
    parser.add_argument(
        "--episode_len",
        type=_steps,
        help="where episodes are cut off, in a file that does not say",
    )
    parser.add_argument(
        "--split",
        choices=["corl", "timeouts"],
        default="corl",
        help="where trajectories end: corl (the default) at terminals and timeouts, "
        "timeouts at these alone",
    )


def _steps(text: str) -> int:
    """Read "1000", "1_000" or "1e3", as launch.py does."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if number.is_integer() and 1 <= number <= NO_LIMIT:
        return int(number)
    raise ArgumentTypeError(f"expected an integer from 1 to {NO_LIMIT}, not {text!r}")


def _list(args: Namespace) -> None:
    """Print a row for each dataset."""
    pattern = f"*{args.pattern.lower()}*"
    names = [name for name in all_specs() if fnmatch(name, pattern)]
    if not names:
        raise _unknown(args.pattern)
    # On a terminal half a url is better than a wrapped line; elsewhere all is whole.
    on_terminal = sys.stdout is not None and sys.stdout.isatty()  # None: it is closed
    width = shutil.get_terminal_size().columns if on_terminal else None
    rows = [("name", "family", "cached", "size", "url")]
    for name in sorted(names):
        spec = all_specs()[name]
        path = datasets.cached_path(spec)
        cached = ("yes", _megabytes(path)) if path.exists() else ("-", "-")
        url = (spec.url or _COLLECTED).removeprefix(_D4RL if width else "")
        rows.append((name, spec.family, *cached, url))
    for line in aligned(rows, "<<<><").splitlines():
        print(f"{line[: width - 1]}…" if width and len(line) > width else line)
    print(f"cache folder: {cache_folder()}")
    for what, folder in _by_products().items():
        if files := _files(folder):
            print(f"{what}: {_megabytes(*files)} in {folder}")
    if width:
        print(f"urls begin with {_D4RL}; | cat shows all of them")


def _info(args: Namespace) -> None:
    """Print all there is to say about a dataset."""
    spec, path = _find(args.dataset)
    data_path = None if spec else str(path)
    if args.env_name is not None:
        if path is None:
            raise UserError(f"{args.dataset} has its own environment, no --env_name")
        data_path, spec = str(path), _environment(args.env_name)
    elif path is not None and spec is None:
        spec = all_specs().get(read_env_name(path) or "")
    dataset = datasets.load(
        spec, data_path, split=args.split, episode_len=args.episode_len
    )
    print(describe(dataset, spec))


def _download(args: Namespace) -> None:
    """Have a dataset in the cache folder, or in Minari's, and say where."""
    if args.name.startswith(minari.PREFIX):
        folder = Path(minari.open_dataset(args.name).storage.data_path)
        print(f"{folder}, {_megabytes(*folder.iterdir())}")
        return
    if args.name not in all_specs():
        raise _unknown(args.name)
    spec = lookup(args.name)
    path = datasets.cached_path(spec)
    was_there = path.exists()
    try:
        sha256 = datasets.load(spec, None).sha256
    except UserError as error:
        if was_there:
            raise _damaged(spec, path, error) from None
        raise
    print(f"{path}{' was there already' if was_there else ''}")
    print(f"{_megabytes(path)}, sha256 {sha256}")


def _damaged(spec: EnvSpec, path: Path, error: UserError) -> UserError:
    """Return the one line about a file that has to make room for a new one."""
    record = f" and {path.name}.sha256" if is_recorded(path) else ""
    return UserError(
        f"{error}. To get it again, delete {path}{record} and run python -m "
        f"dt_jax.data download {spec.name}"
    )


def _verify(args: Namespace) -> None:
    """Read a dataset as training does, and compare it with its recorded sha256."""
    spec, path = _find(args.dataset)
    data_path = None if spec else str(path)
    dataset = datasets.load(
        spec, data_path, split=args.split, episode_len=args.episode_len
    )
    print(f"ok: {lengths_line(dataset.trajectories)}, every number finite")
    if path is not None and is_recorded(path):
        print(f"ok: sha256 {dataset.sha256}, as recorded")
    else:
        print(f"no sha256 was recorded; it is {dataset.sha256}")


def _clear(args: Namespace) -> None:
    """Delete what is cached of the datasets that are named, or of everything."""
    if args.all == bool(args.patterns):
        raise UserError("name the datasets to delete, or give --all; see --help")
    cleared = []
    for pattern in ["*"] if args.all else args.patterns:
        specs = [s for name, s in all_specs().items() if fnmatch(name, pattern)]
        if not specs:
            raise _unknown(pattern)
        paths = map(datasets.cached_path, specs)
        cleared += [file for path in paths for file in kept_with(path)]
    if args.all:
        cleared += [
            file for folder in _by_products().values() for file in _files(folder)
        ]
    cleared = list(dict.fromkeys(cleared))
    size = _megabytes(*cleared)
    for file in cleared:
        file.unlink(missing_ok=True)
    print(f"{size} deleted, in {len(cleared)} files")


def _by_products() -> dict[str, Path]:
    """Return the folders of what is made from datasets and programs."""
    return {"unpacked": unpacked_folder(), "compiled programs": compiled_folder()}


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _find(name: str) -> tuple[EnvSpec | None, Path | None]:
    """Return the dataset of that name, if it is one, and its file, if it is one."""
    if name.startswith(minari.PREFIX):
        return _environment(name), None
    path = user_path(name)
    if name not in all_specs() or path.is_file():
        if path.exists() or path.suffix in _SUFFIXES:
            return None, path  # whoever reads it says if it is of no use
        raise _unknown(name, "file or dataset")
    spec = lookup(name)
    if not datasets.cached_path(spec).exists():
        raise UserError(
            f"{name} is not in {cache_folder()}; get it by "
            f"python -m dt_jax data download {name}"
        )
    return spec, datasets.cached_path(spec)


def _unknown(name: str, kind: str = "dataset") -> UserError:
    """Return the one line about what is no dataset's name."""
    if name.lower().startswith("minari"):
        hint = "Minari's are written minari:ID; minari list local shows what is there"
    else:
        hint = did_you_mean(Path(name).stem, all_specs())
        hint += "; python -m dt_jax data list names all of them"
    return UserError(f"there is no {kind} {name!r}; {hint}")


def _environment(env_name: str) -> EnvSpec:
    """Return what scores and bounds `env_name` has."""
    if env_name in all_specs():
        return lookup(env_name)
    # Only here: the engines take a second or two to import.
    from dt_jax import envs

    return envs.lookup(env_name)


def _megabytes(*files: Path) -> str:
    return f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"
