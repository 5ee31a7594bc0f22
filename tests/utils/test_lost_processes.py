"""What processes tell each other; tests/faults/test_processes.py has real ones."""

import jax
import pytest

from dt_jax.utils.distributed import is_peer_lost


@pytest.mark.parametrize(
    ("error", "alone"),
    [
        # JAX has both, as a program is called and as it runs.
        (
            ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer"),
            True,
        ),
        (jax.errors.JaxRuntimeError("INTERNAL: what it is doesn't matter"), True),
        (ValueError("a batch of no size"), False),
        (RuntimeError("Gloo"), False),
        (None, False),
    ],
)
def test_an_error_that_means_that_another_process_may_be_gone(error, alone):
    assert is_peer_lost(error) == alone
