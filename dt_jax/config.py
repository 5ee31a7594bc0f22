"""What each key of a configuration may be, and what is derived from them."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from dt_jax.data.minari import PREFIX
from dt_jax.errors import UserError
from dt_jax.files import user_path
from dt_jax.registry import lookup


class Rule(NamedTuple):
    """What one key's value may be.

    Attributes:
      expected: the end of the error line, "an integer from 1".
      holds: whether a value is so.
      parse: the value from the command line's text; ValueError if it cannot be read.
    """

    expected: str
    holds: Callable[[Any], bool]
    parse: Callable[[str], Any]


def _parse_int(text: str) -> int:
    """Read "100000", "100_000" or "1e5"."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)


def _parse_bool(text: str) -> bool:
    """Read "true" or "false", in any case."""
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _parse_floats(text: str) -> tuple[float, ...]:
    """Read "3600,1800", "(3600, 1800)" or "3600"."""
    inside = text.strip().strip("()[]").strip().removesuffix(",")
    return tuple(float(part) for part in inside.split(",")) if inside else ()


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _integer(least: int) -> Rule:
    most = 2**31 - 1  # JAX and the environments count in 32 bits
    return Rule(
        f"an integer from {least} to {most}",
        lambda value: type(value) is int and least <= value <= most,
        _parse_int,
    )


def _number(expected: str, holds: Callable[[float], bool]) -> Rule:
    return Rule(expected, lambda value: _is_number(value) and holds(value), float)


def _numbers(expected: str, holds: Callable[[tuple], bool]) -> Rule:
    def all_hold(value: Any) -> bool:
        return type(value) is tuple and all(map(_is_number, value)) and holds(value)

    return Rule(expected, all_hold, _parse_floats)


def _text(expected: str, holds: Callable[[str], bool] = bool) -> Rule:
    return Rule(expected, lambda value: isinstance(value, str) and holds(value), str)


def _one_of(*values: str) -> Rule:
    return _text(f"one of {', '.join(values)}", values.__contains__)


def _or_none(rule: Rule) -> Rule:
    def holds(value: Any) -> bool:
        return value is None or rule.holds(value)

    return Rule(f"{rule.expected}, or None", holds, rule.parse)


_DROPOUT = _number("a number from 0 to below 1", lambda p: 0 <= p < 1)
_POSITIVE = _number("a number above 0", lambda x: x > 0)
_NOT_NEGATIVE = _number("a number from 0 upwards", lambda x: x >= 0)
_POSITIVE_INTEGER = _integer(1)
_INTEGER = _integer(0)

# In the order of configs/default.py, whose comments say what each key is for.
RULES = {
    "project": _text("a label"),
    "group": _text("a label"),
    "name": _text(
        "the name of a folder, without a path",
        lambda name: name not in ("", ".", "..") and not set(name) & set("/\\\0"),
    ),
    "embedding_dim": _POSITIVE_INTEGER,
    "num_layers": _POSITIVE_INTEGER,
    "num_heads": _POSITIVE_INTEGER,
    "seq_len": _POSITIVE_INTEGER,
    "episode_len": _or_none(_POSITIVE_INTEGER),
    "attention_dropout": _DROPOUT,
    "residual_dropout": _DROPOUT,
    "embedding_dropout": _DROPOUT,
    "max_action": _or_none(_POSITIVE),
    "env_name": _or_none(_text("the name of a dataset")),
    "data_path": _or_none(_text("the path of a file")),
    "split": _one_of("corl", "timeouts"),
    "holdout_fraction": _or_none(
        _number("a number from 0 to below 1", lambda x: 0 <= x < 1)
    ),
    "memory_limit_gb": _or_none(_NOT_NEGATIVE),
    "init_from": _or_none(_text("the folder of a run, or a checkpoint of CORL's")),
    "env_backend": _one_of("auto", "gym"),
    "reference_scores": _or_none(
        _numbers(
            "two finite numbers, the first below the second, such as -1200,-150",
            lambda scores: len(scores) == 2 and scores[0] < scores[1],
        )
    ),
    "learning_rate": _POSITIVE,
    "betas": _numbers(
        "two numbers from 0 to below 1, such as 0.9,0.999",
        lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
    ),
    "weight_decay": _NOT_NEGATIVE,
    "clip_grad": _or_none(_POSITIVE),
    "lr_schedule": _one_of("warmup_cosine", "warmup_constant"),
    "batch_size": _POSITIVE_INTEGER,
    "update_steps": _POSITIVE_INTEGER,
    "warmup_steps": _INTEGER,
    "reward_scale": _or_none(_NOT_NEGATIVE),
    "num_workers": _INTEGER,
    "target_returns": _or_none(
        _numbers(
            "finite numbers, all different, such as 3600,1800",
            lambda targets: len(set(targets)) == len(targets),
        )
    ),
    "eval_episodes": _INTEGER,
    "eval_every": _POSITIVE_INTEGER,
    "log_every": _POSITIVE_INTEGER,
    "checkpoint_every": _POSITIVE_INTEGER,
    "keep_checkpoints": _integer(2),
    "checkpoints_path": _or_none(_text("the path of a folder")),
    "deterministic": Rule("true or false", lambda v: type(v) is bool, _parse_bool),
    "train_seed": _INTEGER,
    "eval_seed": _INTEGER,
    "device": _one_of("auto", "cpu", "gpu", "cuda", "tpu"),
}


def override(config: ConfigDict, key: str, text: str) -> None:
    """Set `key` to what the command line says; "None" stands for None.

    Raises:
      UserError: the text cannot be read as a value of `key`.
    """
    rule = RULES[key]
    try:
        config[key] = None if text == "None" else rule.parse(text)
    except ValueError:
        raise _refused(key, text, rule.expected) from None


def validate(config: ConfigDict) -> None:
    """Check every key, and the keys against each other.

    Tuples of numbers become tuples of floats.

    Raises:
      UserError: a value is not what its key expects; the line names the key, the value
        and what is expected.
    """
    for key, rule in RULES.items():
        if not rule.holds(config[key]):
            raise _refused(key, config[key], rule.expected)
    for key in ("betas", "target_returns", "reference_scores"):
        if config[key] is not None:
            config[key] = tuple(map(float, config[key]))

    if config.embedding_dim % config.num_heads:
        expected = f"a multiple of num_heads={config.num_heads}"
        raise _refused("embedding_dim", config.embedding_dim, expected)
    if config.eval_episodes and config.target_returns == ():
        expected = "at least one number, or eval_episodes=0"
        raise _refused("target_returns", config.target_returns, expected)
    if config.data_path is None:
        _check_dataset(config.env_name)


def _check_dataset(env_name: str | None) -> None:
    """Raise a UserError unless `env_name` alone says what to train on."""
    if env_name is None:
        raise _refused("env_name", None, "the name of a dataset, or a data_path")
    if env_name.startswith(PREFIX):  # only Minari can tell
        return
    try:
        lookup(env_name)
    except UserError as error:
        raise UserError(
            f"{error}; any other environment needs its data in data_path"
        ) from None


def _refused(key: str, value: Any, expected: str) -> UserError:
    """Return the one line about a value that is not what its key expects."""
    return UserError(f"config.{key}={value}: expected {expected}")


def workdir_for(config: ConfigDict, workdir: str | None) -> Path:
    """Return the run's folder: `workdir` if given, else one named after the run."""
    if workdir is not None:
        return user_path(workdir)
    return user_path(config.checkpoints_path or "runs") / config.name


def to_json(config: ConfigDict) -> str:
    """Return the text of a run's config.json."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """Return the configuration that `to_json` wrote, locked; its lists were tuples."""
    try:
        return from_dict(json.loads(text))
    except json.JSONDecodeError as error:
        raise UserError(f"a configuration that is no JSON: {error}") from None


def from_dict(values: Mapping[str, Any]) -> ConfigDict:
    """Return the configuration whose keys and values JSON gave back, locked.

    Raises:
      UserError: a key is missing.
    """
    if missing := RULES.keys() - values:
        raise UserError(
            f"a configuration without {', '.join(sorted(missing))}: it was written by "
            "another version of dt_jax"
        )
    return ConfigDict(
        {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    ).lock()


def prepare_backend(config: ConfigDict) -> None:
    """Apply `device` and `deterministic`, and start JAX's back end.

    Call it before anything else touches a device: later it has no effect.

    Raises:
      UserError: there is no such device.
    """
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
