"""What each key of a configuration may be."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dt_jax.data.minari import PREFIX

_MOST_FLOAT = float(np.finfo(np.float32).max)  # in which everything is computed


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


def _parse_names(text: str) -> tuple[str, ...]:
    """Read "tensorboard,wandb" or "('tensorboard', 'wandb')"."""
    parts = (part.strip(" ()[]'\"") for part in text.split(","))
    return tuple(part for part in parts if part)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_MOST_FLOAT <= value <= _MOST_FLOAT


def _integer(least: int, most: int = 2**31 - 1) -> Rule:
    # JAX and the environments count in 32 bits.
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
    def is_text(value: Any) -> bool:  # a path or a name with a null byte is of no use
        return isinstance(value, str) and "\0" not in value and holds(value)

    return Rule(expected, is_text, str)


def _one_of(*values: str) -> Rule:
    return _text(f"one of {', '.join(values)}", values.__contains__)


def _some_of(*values: str) -> Rule:
    def holds(value: Any) -> bool:
        return (
            type(value) is tuple
            and all(isinstance(each, str) and each in values for each in value)
            and len(set(value)) == len(value)
        )

    expected = f"some of {','.join(values)}, each once, or () for none"
    return Rule(expected, holds, _parse_names)


def _or_none(rule: Rule) -> Rule:
    def holds(value: Any) -> bool:
        return value is None or rule.holds(value)

    return Rule(f"{rule.expected}, or None", holds, rule.parse)


_DROPOUT = _number("a number from 0 to below 1", lambda p: 0 <= p < 1)
_POSITIVE = _number("a float32 number above 0", lambda x: bool(np.float32(x) > 0))
_NOT_NEGATIVE = _number("a float32 number from 0 upwards", lambda x: x >= 0)
_POSITIVE_INTEGER = _integer(1)
_INTEGER = _integer(0)
_MOST_STEPS = 10_000  # of one call, for it can't be interrupted
_MOST_PARTS = 1000  # beyond it XLA compiles for ever, or no thread can be started

# In the order of configs/default.py, whose comments say what each key is for.
RULES = {
    "project": _text("a label"),
    "group": _text("a label"),
    "name": _text(
        "the name of a folder, without a path",
        lambda name: name not in ("", ".", "..") and not set(name) & set("/\\"),
    ),
    "embedding_dim": _POSITIVE_INTEGER,
    "num_layers": _integer(1, _MOST_PARTS),
    "num_heads": _POSITIVE_INTEGER,
    "activation": _one_of("gelu", "relu", "gelu_new"),
    "seq_len": _POSITIVE_INTEGER,
    "episode_len": _or_none(_POSITIVE_INTEGER),
    "attention_dropout": _DROPOUT,
    "residual_dropout": _DROPOUT,
    "embedding_dropout": _DROPOUT,
    "max_action": _or_none(_POSITIVE),
    "env_name": _or_none(
        _text(
            f"the name of a dataset; Minari's begin with {PREFIX!r}",
            lambda name: (
                name != ""
                and name.startswith(PREFIX) == name.lower().startswith(PREFIX)
            ),
        )
    ),
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
    "num_workers": _integer(0, _MOST_PARTS),
    "compute_dtype": _one_of("float32", "bfloat16"),
    "steps_per_dispatch": _integer(1, _MOST_STEPS),
    "device_memory_share": _number("a number from 0 to 1", lambda x: 0 <= x <= 1),
    "target_returns": _or_none(
        _numbers(
            "finite float32 numbers, all different, such as 3600,1800",
            lambda targets: len(set(targets)) == len(targets),
        )
    ),
    "eval_episodes": _INTEGER,
    "eval_every": _POSITIVE_INTEGER,
    "log_every": _POSITIVE_INTEGER,
    "loggers": _some_of("tensorboard", "wandb"),
    "checkpoint_every": _POSITIVE_INTEGER,
    "keep_checkpoints": _integer(2),
    "checkpoints_path": _or_none(_text("the path of a folder")),
    "deterministic": Rule("true or false", lambda v: type(v) is bool, _parse_bool),
    "train_seed": _INTEGER,
    "num_seeds": _integer(1, _MOST_PARTS),
    "eval_seed": _INTEGER,
    "num_devices": _or_none(_POSITIVE_INTEGER),
    "device": _one_of("auto", "cpu", "gpu", "cuda", "tpu"),
}

# Keys that are newer than checkpoints of format 3, and what the program did before it
# had them: a configuration that lacks one is read as if it said so.
ADDED: dict[str, Any] = {
    "activation": "gelu",
    "loggers": (),
}
