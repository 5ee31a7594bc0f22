"""The command line of launch.py: --config=file.py:dataset, --config.key=value, ...

ml_collections has flags of its own for this. They read neither 1e5 for an integer nor
None for a number, depend on the flags' order, show a traceback for a misspelt dataset,
and load the file by a call that Python is about to remove; so the little that is needed
stands here.
"""

import inspect
import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from dt_jax.config import RULES, override, validate, workdir_for
from dt_jax.errors import UserError, did_you_mean

HELP = """\
Train a Decision Transformer, evaluate it and keep its checkpoints.

usage: python launch.py [--config=FILE.py[:DATASET]] [--config.KEY=VALUE ...]
                        [--workdir=FOLDER]

  --config=FILE.py:DATASET  the configuration, and which of its datasets
                            (default: {default_config})
  --config.KEY=VALUE        change one key of it; configs/default.py lists them all
  --workdir=FOLDER          the run's folder (default: runs/<name>, or
                            <checkpoints_path>/<name> where that key is set)
  --help                    print this

A second start with the same folder goes on from the last checkpoint.

example:
  python launch.py --config=configs/hopper.py:medium --workdir=runs/hopper \\
      --config.batch_size=256 --config.update_steps=1e5 \\
      --config.target_returns=3600,1800 --config.clip_grad=None
"""


def parse(argv: Sequence[str], default_config: Path) -> tuple[ConfigDict, Path]:
    """Return the configuration that a command line asks for, and the run's folder.

    Args:
      argv: the program's name and its arguments, as in sys.argv.
      default_config: the file used where --config names none.

    Returns:
      The configuration, validated and locked, and the folder, which may not exist yet.

    Raises:
      UserError: a flag, file, dataset, key or value is wrong; the line names the
        nearest valid ones.
    """
    arguments = argv[1:]
    if "--help" in arguments or "-h" in arguments:
        print(HELP.format(default_config=os.path.relpath(default_config)), end="")
        sys.exit(0)
    given = dict(_split(arguments))
    config = _load(given.pop("config", str(default_config)), default_config.parent)
    workdir = given.pop("workdir", None)
    if workdir == "":
        raise UserError("--workdir= names no folder")
    for flag, text in given.items():
        override(config, flag.removeprefix("config."), text)
    validate(config)
    return config, workdir_for(config, workdir)


def _load(reference: str, shipped: Path) -> ConfigDict:
    """Return what get_config() of "file.py" or "file.py:dataset" returns, locked.

    Where there is no such file, the line names the nearest in its folder and `shipped`.
    """
    path, colon, dataset = reference.partition(":")
    if not Path(path).is_file():
        files = {*Path(path).parent.glob("*.py"), *shipped.glob("*.py")}
        hint = did_you_mean(Path(path).name, (file.name for file in files))
        where = os.path.relpath(shipped)
        raise UserError(f"no config file {path!r} (ours are in {where}/); {hint}")
    get_config = runpy.run_path(path).get("get_config")
    if get_config is None:
        raise UserError(f"{path} is no config file: it defines no get_config()")
    if colon and not inspect.signature(get_config).parameters:
        raise UserError(f"{path} takes no dataset: leave out ':{dataset}'")
    try:
        config = get_config(dataset) if colon else get_config()
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    for key in config:
        if key not in RULES:
            raise UserError(f"{path}: unknown key {key!r}; {did_you_mean(key, RULES)}")
    for key in RULES:
        if key not in config:
            raise UserError(f"{path} lacks the key {key!r}: see configs/default.py")
    return config.lock()


def _split(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each flag's name, without its dashes, and its value's text."""
    flags = {"config", "workdir", *(f"config.{key}" for key in RULES)}
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--"):
            raise UserError(
                f"unexpected argument {argument!r}: every setting is --flag=value, "
                "see --help"
            )
        flag, equals, text = argument[2:].partition("=")
        if flag not in flags:
            raise UserError(_unknown(flag))
        if flag == "config.deterministic" and not equals:
            text = "true"
        elif not equals:
            text = next(rest, "--")
            if text.startswith("--"):
                raise UserError(f"--{flag} lacks its value: --{flag}=...")
        yield flag, text


def _unknown(flag: str) -> str:
    """Return the one line about a flag that there is not."""
    if flag.startswith("config."):
        key = flag.removeprefix("config.")
        return f"unknown key --{flag}; {did_you_mean(key, RULES)}"
    if flag in RULES:
        return f"unknown flag --{flag}; a key of the config is set by --config.{flag}="
    return f"unknown flag --{flag}; {did_you_mean(flag, ('config', 'workdir', 'help'))}"
