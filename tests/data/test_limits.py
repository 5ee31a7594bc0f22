import errno
import shutil

import pytest

from dt_jax.data.limits import check_memory, check_room, memory
from dt_jax.utils.errors import UserError


def test_there_is_memory_but_not_any_amount():
    assert 1e8 < memory() < 1e14
    check_memory(memory(), "it")
    with pytest.raises(
        UserError, match=r"^it would take 1e\+06 GB of memory, and this"
    ):
        check_memory(1e15, "it")


def test_there_is_room_but_not_any_amount(tmp_path):
    check_room(tmp_path, 1000)
    with pytest.raises(OSError, match="GB are free there") as caught:
        check_room(tmp_path, 2 * shutil.disk_usage(tmp_path).free)
    assert caught.value.errno == errno.ENOSPC
