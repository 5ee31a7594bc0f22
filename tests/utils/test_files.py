import errno
import os
import signal
import socket
from contextlib import suppress

import pytest
from command import run, start

from dt_jax.utils.errors import UserError
from dt_jax.utils.files import (
    InUseError,
    atomic_write,
    check_writable,
    locked,
    remove_leftovers,
    temporary_path,
    write_text,
)


def test_text_is_utf8_in_any_locale(tmp_path):
    code = (
        f"from dt_jax.utils.files import *; write_text(Path('{tmp_path}/a'), chr(177))"
    )
    status, _, err = run(
        "-c", code, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
    )
    assert status == 0, err
    assert (tmp_path / "a").read_bytes() == "±".encode()


def fail_to_write(path):
    """Fail in the middle of writing; return the temporary file."""
    with suppress(KeyError), atomic_write(path) as temporary:
        temporary.write_text("new, in p")
        raise KeyError
    return temporary


def leftover(path):
    """Return a temporary file as a killed writer of `path` leaves it."""
    temporary = fail_to_write(path)
    temporary.touch()
    return temporary


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_is_replaced_completely_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "old")
    assert fail_to_write(path).suffix == ".txt"
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.txt"]


def test_last_of_two_concurrent_writers_wins(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(path) as first:
        first.write_text("first")
        write_text(path, "second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


def test_only_leftovers_of_a_file_are_removed(tmp_path):
    removed = [leftover(tmp_path / "a[1].npz") for _ in range(2)]
    kept = [leftover(tmp_path / name) for name in ("a1.npz", "a[1].txt", "b.a[1].npz")]
    for name in ("a[1].npz", ".a[1].tmp.npz", ".a[1].npz.lock"):
        kept.append(tmp_path / name)
        kept[-1].touch()
    remove_leftovers(tmp_path / "a[1].npz")
    assert not any(path.exists() for path in removed)
    assert all(path.exists() for path in kept)


def test_leftovers_in_a_folder_are_removed_but_not_in_subfolders(tmp_path):
    below = leftover(tmp_path / "below" / "a.npz")
    for name in ("a.npz", "metrics.jsonl", "no_suffix"):
        leftover(tmp_path / name)
    (tmp_path / ".hidden.tmp").touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden.tmp", "below"]
    assert below.exists()
    remove_leftovers(tmp_path / "missing")


def test_leftover_folders_are_removed_beside_and_in_a_folder(tmp_path):
    path = tmp_path / "export.v2"
    for folder in (temporary_path(path), temporary_path(path / "a")):
        (folder / "params").mkdir(parents=True)
        (folder / "params" / "weights").touch()
    (tmp_path / ".export.v2").mkdir()
    remove_leftovers(path)
    assert names(path) == []
    assert names(tmp_path) == [".export.v2", "export.v2"]


def test_check_leaves_no_file_and_fails_as_writing_does(tmp_path):
    check_writable(tmp_path / "new" / "a.txt")
    assert names(tmp_path / "new") == []
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.txt", tmp_path / f"{'a' * 250}.txt"):
        for write in (check_writable, lambda path: write_text(path, "")):
            with pytest.raises(OSError, match=r"Not a directory|File exists|too long"):
                write(path)


HOLDER = """if True:
    import sys, time
    from pathlib import Path
    from dt_jax.utils.files import locked
    with locked(Path(sys.argv[1])):
        print("locked", flush=True)
        time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds the lock of the folder "run"."""
    process = start("-c", HOLDER, tmp_path / "run")
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_second_process_is_refused_and_the_first_is_named(holder, tmp_path):
    who = f"process {holder.pid} on {socket.gethostname()}"
    with (
        pytest.raises(InUseError, match=f"^{tmp_path}/run is in use by {who}: wait"),
        locked(tmp_path / "run"),
    ):
        pass
    assert (tmp_path / "run/.lock").exists()


def test_lock_that_is_a_pipe_is_refused(tmp_path):
    """Reading it would wait for a writer."""
    os.mkfifo(tmp_path / ".lock")
    message = "lock is not a regular file: remove it"
    with pytest.raises(UserError, match=message), locked(tmp_path):
        pass


def test_lock_of_a_killed_process_is_free(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run/.lock").read_text().split()[0] == str(holder.pid)
    with locked(tmp_path / "run"):
        assert (tmp_path / "run/.lock").read_text().split()[0] == str(os.getpid())


@pytest.fixture
def flock(monkeypatch):
    """Return a function that has the system refuse every lock with an error."""

    def fail(error):
        def refuse(*arguments):
            raise OSError(error, os.strerror(error))

        monkeypatch.setattr("fcntl.flock", refuse)

    return fail


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_folder_that_cannot_be_locked_is_refused(flock, tmp_path, error):
    flock(error)
    message = f"^{tmp_path}/run cannot be locked .{os.strerror(error)}.: choose a --wor"
    with pytest.raises(UserError, match=message), locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_without_system_locks_the_file_is_the_lock(flock, tmp_path):
    """The one of a killed process of this machine is released, others are named."""
    flock(errno.ENOSYS)
    file = tmp_path / ".lock"
    file.write_text(f"{2**22 + 1}\n{socket.gethostname()}\n")
    with pytest.warns(UserWarning, match="flock not supported"), locked(tmp_path):
        assert file.read_text().split()[0] == str(os.getpid())
    file.write_text("12\nnode7\n")
    message = f"in use by process 12 on node7: .*; if it was killed, delete {file}$"
    with (
        pytest.warns(UserWarning, match="flock not supported"),
        pytest.raises(InUseError, match=message),
        locked(tmp_path),
    ):
        pass
    assert names(tmp_path) == [".lock"]


def test_folder_that_stays_empty_is_deleted(tmp_path):
    with pytest.raises(UserError, match="bad data"), locked(tmp_path / "runs/new"):
        raise UserError("bad data")
    assert not (tmp_path / "runs").exists()


def test_folder_of_a_run_is_kept(tmp_path):
    with locked(tmp_path / "runs/new"):
        (tmp_path / "runs/new/config.json").touch()
    assert names(tmp_path / "runs/new") == ["config.json"]


def test_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=f"{tmp_path}/file is not a folder: choose"),
        locked(tmp_path / "file/run"),
    ):
        pass
