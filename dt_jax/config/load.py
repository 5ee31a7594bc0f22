"""Configurations: defaults, files, overrides, validation, and their JSON form."""

import inspect
import os
import re
import runpy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dt_jax.agents import agent_class, agent_names
from dt_jax.config.keys import keys_of
from dt_jax.data.minari import PREFIX
from dt_jax.data.registry import all_specs
from dt_jax.utils.errors import UserError, describe_error, did_you_mean
from dt_jax.utils.files import user_path

_PACKAGE = Path(__file__).parents[1]
# Inside an installed package, beside the package in a checkout.
CONFIGS = next(
    folder
    for folder in (_PACKAGE / "shipped" / "configs", _PACKAGE.parent / "configs")
    if folder.is_dir()
)


def default_config(agent: str = "dt", **changes: Any) -> ConfigDict:
    """Return every key of an agent's configuration at its default.

    Args:
      agent: its registered name.
      **changes: values of keys other than the default. Without a name, the run is named
        after its agent and its env_name.

    Raises:
      UserError: there is no such agent or key.
    """
    keys = keys_of(agent)
    config = ConfigDict({name: key.default for name, key in keys.items()})
    config.agent = agent
    _set_keys(config, changes)
    if "name" not in changes and changes.get("env_name"):
        # The name is a folder's; that of a Minari dataset has slashes.
        config.name = re.sub(r"[:/]", "-", f"{agent}-{config.env_name}")
    return config


def check_dataset(dataset: str, known: Sequence[str]) -> None:
    """Raise a UserError that names the nearest unless `dataset` is one of `known`."""
    if dataset not in known:
        raise UserError(f"unknown dataset {dataset!r}{did_you_mean(dataset, known)}")


def load_config(reference: str, **overrides: Any) -> ConfigDict:
    """Return the configuration of a file, validated and locked.

    Args:
      reference: "file.py" or "file.py:dataset". "configs/hopper.py" is the package's
        own where the working directory has no such file that mentions dt_jax.
      **overrides: values of keys other than `agent`.

    Raises:
      UserError: there is no such file, and the message names the nearest; it defines no
        configuration; or a value is not what its key expects.
    """
    config = read_config_file(reference).unlock()
    check_agent(config, overrides.get("agent", config.agent), reference)
    _set_keys(config, overrides)
    validate(config)
    return config.lock()


def check_agent(
    config: ConfigDict, agent: str, reference: str, flag: str = "agent"
) -> None:
    """Raise a UserError unless `agent` is the one that a config file configures."""
    if agent != config.agent:
        raise UserError(
            f"{flag}={agent}: {reference} configures the agent {config.agent}; choose "
            f"a config file of {agent}"
        )


def _set_keys(config: ConfigDict, values: Mapping[str, Any]) -> None:
    """Set keys, not validated; lists become tuples, NumPy's numbers Python's."""
    for name, value in values.items():
        if name not in config:
            raise UserError(f"unknown key {name!r}{key_hint(name, config.agent)}")
        value = value.item() if isinstance(value, np.generic) else value
        with config.ignore_type():
            config[name] = tuple(value) if isinstance(value, list) else value


def key_hint(name: str, agent: str) -> str:
    """Return the end of the message about a key that `agent` does not have."""
    if others := [other for other in agent_names() if name in keys_of(other)]:
        return f"; it is a key of {', '.join(others)}, not of {agent}"
    return did_you_mean(name, keys_of(agent))


def read_config_file(reference: str) -> ConfigDict:
    """Return what get_config() of a file returns, with its keys checked, locked."""
    path, colon, dataset = reference.partition(":")
    here, ours = Path(path), CONFIGS.parent / path
    if here != ours and ours.is_file():
        if not here.is_file():
            path = str(ours)
        elif b"dt_jax" not in here.read_bytes():  # of another project
            warnings.warn(f"{here} does not use dt_jax: {ours} is read", stacklevel=2)
            path = str(ours)
    if not Path(path).is_file():
        theirs = map(str, here.parent.glob("*.py"))
        files = (str(x.relative_to(CONFIGS.parent)) for x in CONFIGS.rglob("*.py"))
        hint = did_you_mean(path, {*theirs, *files})
        raise UserError(
            f"no config file {path!r} (the package's are in "
            f"{short_path(CONFIGS)}/){hint}"
        )
    try:
        get_config = runpy.run_path(path).get("get_config")
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's file may raise
        raise UserError(describe_error(error, path)) from error
    if not callable(get_config):
        raise UserError(f"{path} is not a config file: it defines no get_config()")
    if colon and not inspect.signature(get_config).parameters:
        raise UserError(f"{path} takes no dataset: leave out ':{dataset}'")
    try:
        config = get_config(dataset) if colon else get_config()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserError(describe_error(error, path)) from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{path}: get_config() returned {config!r}, expected a ConfigDict"
        )
    keys = keys_of(config.get("agent", "dt"))
    for key in [key for key in config if key not in keys]:
        hint = key_hint(str(key), config.get("agent", "dt"))
        raise UserError(f"{path}: unknown key {key!r}{hint}")
    for key in [key for key in keys if key not in config]:
        raise UserError(
            f"{path} lacks the key {key!r}: start from dt_jax.config.default_config()"
        )
    return config.lock()


def override(config: ConfigDict, key: str, text: str) -> None:
    """Set `key` to what the command line says; see `Key.parse`."""
    value = keys_of(config.agent)[key].parse(text)
    with config.ignore_type():  # a file may have set a float key to 1
        config[key] = value


def validate(config: ConfigDict, *, trains: bool = True) -> None:
    """Check every key, and the keys against each other.

    Tuples of numbers become tuples of floats.

    Args:
      config: with every key.
      trains: whether there has to be data to train on.

    Raises:
      UserError: a value is not what its key expects.
    """
    keys = keys_of(config.agent)
    for name, key in keys.items():
        if isinstance(config[name], ConfigDict):  # as a file may write env_kwargs
            with config.ignore_type():
                config[name] = repr(config[name].to_dict())
        key.validate(config[name])
        value = config[name]
        if type(value) is tuple and all(type(x) in (int, float) for x in value):
            config[name] = tuple(map(float, value))
    agent_class(config.agent).check_config(config)
    if not trains or config.data_path is not None:
        return
    if config.env_name is None:
        expected = "the name of a dataset, or a data_path"
        raise keys["env_name"].error(None, expected=expected)
    # Only Minari knows its datasets.
    if not config.env_name.startswith(PREFIX) and config.env_name not in all_specs():
        # Imported here because the engines take a second or two to import.
        from dt_jax import envs

        envs.spec_from_config(config)  # an unknown one, or discrete actions
        raise UserError(
            f"{config.env_name} is an environment, which needs its data: set data_path"
        )


def from_dict(values: Mapping[str, Any]) -> ConfigDict:
    """Return the configuration that a run's record holds as JSON, validated and locked.

    Raises:
      UserError: a key is missing or unknown, a value is not what its key expects, or
        the agent is not registered.
    """
    if not isinstance(values, Mapping) or not isinstance(values.get("agent"), str):
        raise UserError("a configuration that names no agent")
    keys = keys_of(values["agent"])
    if other := keys.keys() ^ values:
        kind = "without" if other & keys.keys() else "with unknown"
        raise UserError(
            f"a configuration {kind} keys {', '.join(sorted(other))[:300]}: it was "
            "written by another version of dt_jax or of the agent; use that version"
        )
    config = ConfigDict(
        {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    )
    validate(config, trains=False)
    return config.lock()


def workdir_for(config: ConfigDict, workdir: str | Path | None) -> Path:
    """Return the run's folder: `workdir` if given, else one named after the run.

    The path is absolute, because an environment may change the working folder.

    Raises:
      UserError: checkpoints cannot be saved at its path.
    """
    folder = user_path(config.checkpoints_path or "runs") / config.name
    if workdir is not None:
        folder = user_path(workdir)
    check_folder(folder, "--workdir")
    return folder.absolute()


def check_folder(folder: Path, flag: str) -> None:
    """Raise a UserError that names `flag` if Orbax cannot save in a folder."""
    path = Path(os.path.realpath(folder)).as_posix()  # Orbax resolves links too
    if path != path.encode(errors="replace").decode():  # TensorStore needs UTF-8
        raise UserError(f"{folder} is not valid UTF-8: choose another {flag}")
    # Orbax takes []*? for a pattern, and then does not find what it has saved;
    # TensorStore takes a backslash for a slash, and saves elsewhere.
    if wild := set(path) & set("[]*?\\"):
        raise UserError(
            f"{folder}: the path of a run's folder must not contain "
            f"{' '.join(sorted(wild))}; choose another {flag}"
        )


def short_path(folder: Path) -> str:
    """Return a path relative to the working directory if that is shorter."""
    return min(str(folder), os.path.relpath(folder), key=len)
