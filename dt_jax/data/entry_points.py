"""What a Minari dataset names as its environment: to make one is to call it."""

import json
import sys
from importlib import import_module
from typing import Any

from dt_jax.utils.errors import UserError

_ENVIRONMENTS = "env_spec", "eval_env_spec"  # in metadata.json
_PACKAGES = "gymnasium", "gymnasium_robotics"
_WRITES_FILES = "gymnasium.wrappers.rendering"  # of videos, anywhere


def check_environments(env_name: str, metadata: dict[str, Any]) -> None:
    """Refuse environments and wrappers that are unknown here.

    Known are Gymnasium's and Gymnasium-Robotics', those that are registered, and those
    of modules that are imported already. Nothing else is imported.

    Args:
      env_name: what to call the dataset in errors.
      metadata: of a dataset.

    Raises:
      UserError: it names something else.
    """
    for spec in (json.loads(metadata.get(key) or "{}") for key in _ENVIRONMENTS):
        parts = [spec, *(spec.get("additional_wrappers") or ())]
        for part in parts:
            if "entry_point" in part and not _is_known(str(part["entry_point"])):
                raise UserError(
                    f"{env_name} names {part['entry_point']} as its environment or a "
                    "wrapper, which is unknown here and is not called; if you trust "
                    "it, import its package in your config file, else take env_spec "
                    "and eval_env_spec out of its metadata.json"
                )


def _is_known(entry_point: str) -> bool:
    from gymnasium import Env, registry

    if any(entry_point == spec.entry_point for spec in registry.values()):
        return True
    module, _, name = entry_point.partition(":")
    if module.partition(".")[0] in _PACKAGES:
        try:
            import_module(module)
        except ImportError:  # whoever makes it says so
            return True
    found = getattr(sys.modules.get(module), name, None)
    is_environment = isinstance(found, type) and issubclass(found, Env)
    return is_environment and found.__module__ != _WRITES_FILES
