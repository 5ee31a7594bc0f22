"""Offline reinforcement learning by sequence modelling, in JAX."""

from typing import TYPE_CHECKING, Any

from dt_jax.utils.versions import __version__

if TYPE_CHECKING:
    from dt_jax.evaluation.policy import Policy

__all__ = ["Policy", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `Policy` on first use: JAX behind it takes seconds to import."""
    if name == "Policy":
        from dt_jax.evaluation.policy import Policy

        return Policy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
