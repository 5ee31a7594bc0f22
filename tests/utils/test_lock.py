import os
import signal
import socket

import pytest
from command import start

from dt_jax.utils.errors import UserError
from dt_jax.utils.lock import alone_in

HOLDER = """if True:
    import sys, time
    from pathlib import Path
    from dt_jax.utils.lock import alone_in
    with alone_in(Path(sys.argv[1])):
        print("locked", flush=True)
        time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    process = start("-c", HOLDER, tmp_path / "run")
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_told_of_the_first(holder, tmp_path):
    who = f"process {holder.pid} on {socket.gethostname()}"
    with (
        pytest.raises(UserError, match=f"^{tmp_path}/run is in use by {who}: wait"),
        alone_in(tmp_path / "run"),
    ):
        pass
    assert (tmp_path / "run/.lock").exists()


def test_the_lock_of_a_killed_process_is_recovered(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run/.lock").read_text().split()[0] == str(holder.pid)
    with alone_in(tmp_path / "run"):
        assert (tmp_path / "run/.lock").read_text().split()[0] == str(os.getpid())


def test_nothing_is_left_where_nothing_was_begun(tmp_path):
    with pytest.raises(UserError, match="bad data"), alone_in(tmp_path / "runs/new"):
        raise UserError("bad data")
    assert not (tmp_path / "runs").exists()


def test_a_run_stays(tmp_path):
    with alone_in(tmp_path / "runs/new"):
        (tmp_path / "runs/new/config.json").touch()
    assert [path.name for path in (tmp_path / "runs/new").iterdir()] == ["config.json"]


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=f"{tmp_path}/file is no folder: choose another"),
        alone_in(tmp_path / "file/run"),
    ):
        pass
