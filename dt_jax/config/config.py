"""A configuration: how its keys are set, checked, kept and put to use."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from dt_jax.config.rules import ADDED, RULES
from dt_jax.config.sizes import check_sizes
from dt_jax.data.minari import PREFIX
from dt_jax.data.registry import lookup
from dt_jax.utils.compilation_cache import keep_compiled
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import user_path


def override(config: ConfigDict, key: str, text: str, flag: str | None = None) -> None:
    """Set `key` to what the command line says; "None" stands for None.

    Args:
      config: the configuration.
      key: one of `RULES`.
      text: its value.
      flag: what was typed, for error lines, where that is not config.<key>.

    Raises:
      UserError: the text cannot be read as a value of `key`, or is none.
    """
    rule, typed = RULES[key], flag or f"config.{key}"
    try:
        value = None if text == "None" else rule.parse(text)
    except ValueError:
        raise _refused(typed, text, rule.expected) from None
    if not rule.holds(value):
        raise _refused(typed, value, rule.expected)
    with config.ignore_type():  # a file may have set a float key to 1
        config[key] = value


def validate(config: ConfigDict, *, trains: bool = True) -> None:
    """Check every key, and the keys against each other.

    Tuples of numbers become tuples of floats.

    Args:
      config: with every key.
      trains: whether there have to be data to train on.

    Raises:
      UserError: a value is not what its key expects; the line names the key, the value
        and what is expected.
    """
    for key, rule in RULES.items():
        if not rule.holds(config[key]):
            raise _refused(f"config.{key}", config[key], rule.expected)
    for key in ("betas", "target_returns", "reference_scores"):
        if config[key] is not None:
            config[key] = tuple(map(float, config[key]))

    if config.embedding_dim % config.num_heads:
        expected = f"a multiple of num_heads={config.num_heads}"
        raise _refused("config.embedding_dim", config.embedding_dim, expected)
    if config.eval_episodes and config.target_returns == ():
        expected = "at least one number, or eval_episodes=0"
        raise _refused("config.target_returns", config.target_returns, expected)
    if trains and config.data_path is None:
        _check_dataset(config.env_name)


def _check_dataset(env_name: str | None) -> None:
    """Raise a UserError unless `env_name` alone says what to train on."""
    if env_name is None:
        expected = "the name of a dataset, or a data_path"
        raise _refused("config.env_name", None, expected)
    if env_name.startswith(PREFIX):  # only Minari can tell
        return
    try:
        lookup(env_name)
    except UserError as error:
        raise UserError(
            f"{error}; any other environment needs its data in data_path"
        ) from None


def _refused(setting: str, value: Any, expected: str) -> UserError:
    """Return the one line about a value that is not what is expected."""
    shown = " ".join(str(value).replace("\0", r"\0").split())
    return UserError(f"{setting}={shown[:200]}: expected {expected}")


def workdir_for(config: ConfigDict, workdir: str | None) -> Path:
    """Return the run's folder: `workdir` if given, else one named after the run.

    Raises:
      UserError: its path has brackets or wildcards in it, or is no UTF-8.
    """
    folder = user_path(config.checkpoints_path or "runs") / config.name
    if workdir is not None:
        folder = user_path(workdir)
    check_folder(folder, "--workdir")
    return folder


def check_folder(folder: Path, flag: str) -> None:
    """Raise a UserError, naming `flag`, if no checkpoint could be kept in a folder."""
    path = str(Path.cwd() / folder)
    if path != path.encode(errors="replace").decode():  # TensorStore needs UTF-8
        raise UserError(f"{folder} is no path in UTF-8: choose another {flag}")
    # Orbax takes them for a pattern, and saves what it then can't find.
    if wild := set(path) & set("[]*?"):
        raise UserError(
            f"{folder}: a run's folder may have no {' '.join(sorted(wild))} in its "
            f"path; choose another {flag}"
        )


def to_json(config: ConfigDict) -> str:
    """Return the text of a run's config.json."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """Return the configuration that `to_json` wrote, locked; its lists were tuples.

    Raises:
      UserError: it is no JSON, or that of another version.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"a configuration that is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError("a configuration that has no keys: it was never one")
    return from_dict(values)


def from_dict(values: Mapping[str, Any]) -> ConfigDict:
    """Return the configuration whose keys and values JSON gave back, locked.

    Of an older one, keys that were added since are as the program then was.

    Raises:
      UserError: a key is missing, or one is there that is unknown.
    """
    values = {**ADDED, **values}
    if other := RULES.keys() ^ values:
        with_or_without = "without" if other & RULES.keys() else "with"
        raise UserError(
            f"a configuration {with_or_without} {', '.join(sorted(other))[:300]}: it "
            "was written by another version of dt_jax; use that one"
        )
    return ConfigDict(
        {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    ).lock()


def prepare_backend(config: ConfigDict, *, trains: bool = True) -> None:
    """Apply `device` and `deterministic`, start JAX's back end, look at its memory.

    Call it before anything else touches a device: later it has no effect.

    Args:
      config: validated.
      trains: whether there will be updates, or only episodes.

    Raises:
      UserError: there is no such device, or what is asked for is too large.
    """
    keep_compiled()
    if config.deterministic:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    device = "gpu" if config.device == "cuda" else config.device
    if device != "auto":
        # The CPU stays listed: callbacks to the environments put their inputs there.
        platforms = {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}[device]
        jax.config.update("jax_platforms", platforms)
    try:
        found, reason = jax.default_backend(), ""
    except RuntimeError as error:
        found, reason = None, f" (JAX says: {error})"
    # Without its CUDA package JAX falls back to the CPU and says nothing.
    if found is None or device not in ("auto", found):
        raise UserError(
            f"config.device={config.device}: JAX finds no such device{reason}; a GPU "
            "needs pip install -r requirements-cuda.txt, --config.device=cpu needs none"
        )
    check_sizes(config, trains=trains)
