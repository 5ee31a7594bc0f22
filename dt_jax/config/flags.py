"""The command line of launch.py: --config=file.py:dataset, --config.key=value, ...

The flags are absl's. ml_collections has a flag of its own for config files, which reads
neither 1e5 for an integer nor None for a number, depends on the flags' order, shows a
traceback for a misspelt dataset, and loads the file by a call that Python is about to
remove.
"""

import inspect
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict

from dt_jax.config.config import override, validate, workdir_for
from dt_jax.config.rules import RULES
from dt_jax.utils.errors import UserError, did_you_mean

HELP = """\
Train a Decision Transformer, evaluate it and keep its checkpoints.

usage: python launch.py [--config=FILE.py[:DATASET]]
         [--config.KEY=VALUE ...] [--workdir=FOLDER] [--dry_run] [--distributed]

  --config=FILE.py:DATASET
        the configuration, and which of its datasets; where there is no such
        file, configs/NAME.py is one of ours (default: configs/quickstart.py)
  --config.KEY=VALUE
        change one key of it; configs/default.py lists them all
  --workdir=FOLDER
        the run's folder (default: runs/<name>, or <checkpoints_path>/<name>
        where that key is set)
  --dry_run
        only step the environment and make one update, on the data if it is at
        hand, else on made-up data; begin no run
  --distributed
        this is one of several processes, on one machine or many, that train
        one run: see docs/scaling.md
  --help
        print this

A second start with the same folder goes on from the last checkpoint.
Our configurations are in {configs}.

example:
  python launch.py --config=configs/hopper.py:medium \\
      --workdir=runs/hopper --config.batch_size=256 --config.update_steps=1e5 \\
      --config.target_returns=3600,1800 --config.clip_grad=None
"""

_PACKAGE = Path(__file__).parents[1]
# In an installed package they lie inside of it, in a checkout beside it.
CONFIGS = next(
    folder
    for folder in (_PACKAGE / "shipped" / "configs", _PACKAGE.parent / "configs")
    if folder.is_dir()
)


class Request(NamedTuple):
    """What a command line asks for."""

    config: ConfigDict  # validated and locked
    workdir: Path  # the run's folder, which may not exist yet
    dry_run: bool
    distributed: bool  # there are other processes of the same run


def parse(argv: Sequence[str]) -> Request:
    """Return what a command line asks for.

    Args:
      argv: the arguments, without the program's name.

    Raises:
      UserError: a flag, file, dataset, key or value is wrong; the line names the
        nearest valid ones.
    """
    values = _define()
    if {"--help", "-h"} & set(argv):
        print(HELP.format(configs=_shown(CONFIGS)), end="")
        sys.exit(0)
    _read(values, argv)
    for flag in ("config", "workdir"):
        if "\0" in (values[flag].value or ""):
            raise UserError(f"--{flag} has a null byte in it: leave that out")
    if values.workdir is not None and values.workdir[:1] in ("", "-"):
        raise UserError("--workdir lacks its value: --workdir=FOLDER")
    if values.dry_run and values.distributed:
        raise UserError("--dry_run looks in one process: leave out --distributed")
    config = load(values.config)
    for key in RULES:
        if values[f"config.{key}"].present:
            override(config, key, str(values[f"config.{key}"].value))
    validate(config)
    return Request(
        config,
        workdir_for(config, values.workdir),
        values.dry_run,
        values.distributed,
    )


def load(reference: str) -> ConfigDict:
    """Return what get_config() of "file.py" or "file.py:dataset" returns, locked.

    "configs/hopper.py" is ours where there is no such file here.

    Raises:
      UserError: there is no such file, and the line names the nearest; or it makes no
        configuration.
    """
    path, colon, dataset = reference.partition(":")
    if not Path(path).is_file() and (CONFIGS.parent / path).is_file():
        path = str(CONFIGS.parent / path)
    if not Path(path).is_file():
        files = {*Path(path).parent.glob("*.py"), *CONFIGS.glob("*.py")}
        hint = did_you_mean(Path(path).name, {file.name for file in files})
        raise UserError(
            f"no config file {path!r} (ours are in {_shown(CONFIGS)}/); {hint}"
        )
    if str(CONFIGS.parent) not in sys.path:  # for `from configs import default`
        sys.path.append(str(CONFIGS.parent))
    try:
        get_config = runpy.run_path(path).get("get_config")
    except (Exception, SystemExit) as error:  # whatever a user's file may raise
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error
    if not callable(get_config):
        raise UserError(f"{path} is no config file: it defines no get_config()")
    if colon and not inspect.signature(get_config).parameters:
        raise UserError(f"{path} takes no dataset: leave out ':{dataset}'")
    try:
        config = get_config(dataset) if colon else get_config()
    except (Exception, SystemExit) as error:
        raise UserError(f"{path}: {str(error) or repr(error)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() returns no ConfigDict, but {config!r}")
    for key in config:
        if key not in RULES:
            raise UserError(
                f"{path}: unknown key {key!r}; {did_you_mean(str(key), RULES)}"
            )
    for key in RULES:
        if key not in config:
            raise UserError(f"{path} lacks the key {key!r}: see configs/default.py")
    return config.lock()


def _shown(folder: Path) -> str:
    """Return a path as short as it can be from here."""
    return min(str(folder), os.path.relpath(folder), key=len)


def _define() -> flags.FlagValues:
    """Define the flags, one for each key of the configuration among them."""
    values = flags.FlagValues()
    default = str(CONFIGS / "quickstart.py")
    flags.DEFINE_string("config", default, "", flag_values=values)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_boolean("dry_run", False, "", flag_values=values)
    flags.DEFINE_boolean("distributed", False, "", flag_values=values)
    for key in RULES:
        if key == "deterministic":  # may stand alone
            flags.DEFINE_boolean(f"config.{key}", None, "", flag_values=values)
        else:  # the text is read by the key's rule
            flags.DEFINE_string(f"config.{key}", None, "", flag_values=values)
    return values


def _read(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Give `values` what the command line says."""
    try:
        rest = values(["train", *argv])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(_unknown(error.flagname)) from None
    except flags.IllegalFlagValueError as error:  # only a boolean's: the rest is text
        flag = str(error).partition(":")[0]
        raise UserError(f"{flag}: expected true or false") from None
    except flags.Error as error:
        raise UserError(f"{error}; see --help") from None
    if rest:
        raise UserError(
            f"unexpected argument {rest[0]!r}: a setting is --flag=value; see --help"
        )


def _unknown(flag: str) -> str:
    """Return the one line about a flag that there is not."""
    if flag.startswith("config."):
        key = flag.removeprefix("config.")
        return f"unknown key --{flag}; {did_you_mean(key, RULES)}"
    if flag in RULES:
        return f"unknown flag --{flag}; a key of the config is set by --config.{flag}="
    known = "config", "workdir", "dry_run", "distributed", "help"
    return f"unknown flag --{flag}; {did_you_mean(flag, known)}"
