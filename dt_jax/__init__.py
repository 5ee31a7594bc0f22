"""The Decision Transformer for offline reinforcement learning, in JAX."""

import sys
from typing import TYPE_CHECKING, Any

if sys.argv[:1] == ["-m"]:  # python -m dt_jax.evaluate: its imports take seconds
    from dt_jax.errors import answer_signals

    answer_signals()

if TYPE_CHECKING:
    from dt_jax.policy import Policy

__all__ = ["Policy"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `Policy` when it is asked for: what stands behind it takes seconds."""
    if name == "Policy":
        from dt_jax.policy import Policy

        return Policy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
