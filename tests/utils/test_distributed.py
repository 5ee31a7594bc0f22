"""Functions of one process; tests/faults/test_processes.py starts several."""

import jax
import pytest

from dt_jax.utils.distributed import all_succeed, check_equal, is_peer_lost
from dt_jax.utils.errors import UserError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        # JAX raises either, when a program is called or while it runs.
        (ValueError("UNKNOWN: Gloo failed: Connection closed by peer"), True),
        (jax.errors.JaxRuntimeError("INTERNAL: any message"), True),
        (ValueError("a batch without windows"), False),
        (RuntimeError("Gloo"), False),
        (None, False),
    ],
)
def test_errors_of_a_lost_peer_are_recognised(error, expected):
    assert is_peer_lost(error) == expected


def test_one_process_passes_its_own_errors_on():
    check_equal(workdir="anything")
    with pytest.raises(UserError, match=r"^its own$"), all_succeed():
        raise UserError("its own")
