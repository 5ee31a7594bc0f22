"""Offline reinforcement learning by sequence modelling, in JAX."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dt_jax.utils.versions import __version__

if TYPE_CHECKING:
    from dt_jax.agents import make_agent, register
    from dt_jax.config import load_config
    from dt_jax.datasets import load_dataset
    from dt_jax.evaluation.evaluate import evaluate
    from dt_jax.evaluation.policy import Policy
    from dt_jax.training.train import train

__all__ = [
    "Policy",
    "__version__",
    "evaluate",
    "load_config",
    "load_dataset",
    "make_agent",
    "register",
    "train",
]

# A notebook names its own backend to `!python`, which may lack it: matplotlib, and
# packages that import it, would fail. Pictures here need none.
_backend = os.environ.get("MPLBACKEND", "")
if _backend.startswith("module://") and not find_spec(_backend[9:].split(".")[0]):
    del os.environ["MPLBACKEND"]

_MODULES = {  # imported on first use: JAX takes seconds to import
    "Policy": "dt_jax.evaluation.policy",
    "evaluate": "dt_jax.evaluation.evaluate",
    "load_config": "dt_jax.config",
    "load_dataset": "dt_jax.datasets",
    "make_agent": "dt_jax.agents",
    "register": "dt_jax.agents",
    "train": "dt_jax.training.train",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
