"""JAX's strict modes, and what several tests share."""

import jax
import pytest


@pytest.fixture(autouse=True)
def _strict_jax():
    """Refuse silent promotion of dtypes and ranks in everything under test."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
