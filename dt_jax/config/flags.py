"""The flags of `train`: --config=FILE.py:DATASET, --config.KEY=VALUE, and a few more.

The flags are absl's. ml_collections has a flag for config files, which cannot parse
1e5 for an integer nor None for a number, depends on the flags' order, and prints a
traceback for a misspelt dataset.
"""

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict

from dt_jax.config.keys import keys_of, sections_of
from dt_jax.config.load import (
    CONFIGS,
    check_agent,
    key_hint,
    override,
    read_config_file,
    short_path,
    validate,
    workdir_for,
)
from dt_jax.utils.errors import UserError, did_you_mean

_HELP = """\
Train an agent, evaluate it and save its checkpoints, or resume a run.

usage: {program} [--config=FILE.py[:DATASET]] [--config.KEY=VALUE ...]
         [--workdir=FOLDER] [--agents=FILE.py] [--dry_run] [--distributed]

  --config=FILE.py:DATASET
        the configuration, and which of its datasets; configs/NAME.py is the
        package's own unless there is such a file here (default:
        configs/quickstart.py)
  --config.KEY=VALUE
        change one key of it; the keys are listed below
  --workdir=FOLDER
        the run's folder (default: runs/<name>, or <checkpoints_path>/<name>
        where that key is set)
  --agents=FILE.py
        a file that registers agents of your own
  --dry_run
        only step the environment and make one update, on the data if it is
        available, else on random data; start no run
  --distributed
        this is one of several processes, on one machine or many, that train
        one run: see docs/scaling.md
  --help
        print this

The same command again resumes the run from its last checkpoint.
The package's configurations are in {configs}.

example:
  {program} --config=configs/hopper.py:medium \\
      --workdir=runs/hopper --config.batch_size=256 --config.update_steps=1e5 \\
      --config.target_returns=3600,1800 --config.clip_grad=None

Keys of {reference}:
"""


class Request(NamedTuple):
    """What a command line asks for."""

    config: ConfigDict  # validated and locked
    workdir: Path  # the run's folder, which may not exist yet
    dry_run: bool
    distributed: bool  # there are other processes of the same run


def parse(arguments: Sequence[str]) -> Request:
    """Return what a command line, without the program's name, asks for.

    Raises:
      UserError: a flag, file, dataset, key or value is wrong; the message names the
        nearest valid ones.
    """
    values, rest = _parse_general_flags(arguments)
    for flag in ("config", "workdir"):
        if "\0" in (values[flag].value or ""):
            raise UserError(f"--{flag} contains a null byte: leave it out")
    if values.workdir is not None and values.workdir[:1] in ("", "-"):
        raise UserError("--workdir lacks its value: --workdir=FOLDER")
    if values.dry_run and values.distributed:
        raise UserError("--dry_run uses one process: leave out --distributed")
    config = read_config_file(values.config)
    if values.help:
        print(help_text(config, values.config))
        sys.exit(0)
    for key, text in _parse_keys(rest, config.agent).items():
        if key == "agent":
            check_agent(config, text, values.config, "--config.agent")
        override(config, key, text)
    validate(config)
    workdir = workdir_for(config, values.workdir)
    return Request(config, workdir, values.dry_run, values.distributed)


def help_text(config: ConfigDict, reference: str) -> str:
    """Return the help: the flags, and every key of a file's configuration."""
    in_checkout = (CONFIGS.parent / "launch.py").is_file()
    program = "python launch.py" if in_checkout else "python -m dt_jax train"
    configs = short_path(CONFIGS)
    lines = [_HELP.format(program=program, configs=configs, reference=reference)[:-1]]
    for section, keys in sections_of(config.agent).items():
        lines.append(f"  {section}")
        for key in keys:
            default, expected = _shown(key.default), key.check.expected
            lines.append(f"  --config.{key.name}={_shown(config[key.name])}")
            comment = f"{key.comment} Default: {default}; {expected}."
            lines.append(textwrap.indent(textwrap.fill(comment, 71), " " * 8))
        lines.append("")
    return "\n".join(lines).rstrip()


def _shown(value: object) -> str:
    """Return a value as the command line takes it."""
    if isinstance(value, tuple):
        return ",".join(map(_shown, value)) or "()"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parse_general_flags(
    arguments: Sequence[str],
) -> tuple[flags.FlagValues, list[str]]:
    """Return the flags that are no keys, and the other arguments."""
    values = flags.FlagValues()
    default = str(CONFIGS / "quickstart.py")
    flags.DEFINE_string("config", default, "", flag_values=values)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    # `dt_jax.cli.main` has run the file already.
    flags.DEFINE_string("agents", None, "", flag_values=values)
    flags.DEFINE_boolean("dry_run", False, "", flag_values=values)
    flags.DEFINE_boolean("distributed", False, "", flag_values=values)
    flags.DEFINE_boolean("help", False, "", short_name="h", flag_values=values)
    return values, _read(values, arguments, known_only=True)


def _parse_keys(arguments: Sequence[str], agent: str) -> dict[str, str]:
    """Return the texts that --config.KEY=VALUE gives to keys."""
    values, keys = flags.FlagValues(), keys_of(agent)
    for name, key in keys.items():
        if type(key.default) is bool:  # its flag may have no value
            flags.DEFINE_boolean(f"config.{name}", None, "", flag_values=values)
        else:  # the text is parsed by the key
            flags.DEFINE_string(f"config.{name}", None, "", flag_values=values)
    try:
        rest = _read(values, arguments)
    except flags.UnrecognizedFlagError as error:
        raise UserError(_unknown_flag(error.flagname, agent)) from None
    if rest:
        raise UserError(
            f"unexpected argument {rest[0]!r}: a setting is --flag=value; see --help"
        )
    given = {name: values[f"config.{name}"] for name in keys}
    return {name: str(flag.value) for name, flag in given.items() if flag.present}


def _read(
    values: flags.FlagValues, arguments: Sequence[str], known_only: bool = False
) -> list[str]:
    """Set the flags, and return the arguments that belong to none of them."""
    try:
        return values(["train", *arguments], known_only=known_only)[1:]
    except flags.UnrecognizedFlagError:
        raise
    except flags.IllegalFlagValueError as error:  # only of booleans: others are text
        flag = str(error).partition(":")[0]
        raise UserError(f"{flag}: expected true or false") from None
    except flags.Error as error:
        raise UserError(f"{error}; see --help") from None


def _unknown_flag(flag: str, agent: str) -> str:
    """Return the error message about an unknown flag."""
    if flag.startswith("config."):
        key = flag.removeprefix("config.")
        return f"unknown key --{flag}{key_hint(key, agent)}; see --help"
    if flag in keys_of(agent):
        return f"unknown flag --{flag}; set a key of the config by --config.{flag}="
    known = "agents", "config", "workdir", "dry_run", "distributed", "help"
    return f"unknown flag --{flag}{did_you_mean(flag, known)}"
