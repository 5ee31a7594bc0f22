"""Files and folders: paths as users write them, atomic writes, and a run's lock."""

import json
import math
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from dt_jax.utils.errors import UserError

_TOKEN = 8  # random hexadecimal digits in the name of a temporary file


class InUseError(UserError):
    """Another process holds the lock of a run's folder."""


def user_path(path: str | Path) -> Path:
    """Return a path with ~ and ~user expanded; an unknown ~user is not changed."""
    return Path(os.path.expanduser(path))


def user_cache_folder() -> Path:
    """Return the folder of what the user can lose, ~/.cache/dt_jax on Linux.

    Raises:
      UserError: the user has no home folder, as in a container with any user id.
    """
    try:
        return Path(platformdirs.user_cache_dir("dt_jax"))
    except RuntimeError:
        raise UserError(
            "no home folder to keep datasets in: set HOME, or DT_JAX_DATA to a folder"
        ) from None


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces `path` if the block succeeds.

    At any time `path` has its old content or the complete new one. Of several writers
    the last one wins. The folder is created if missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:  # Windows flushes only what is writable
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, completely or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")  # in any locale


def read_regular(path: Path) -> bytes:
    """Return the content of a file; that of a pipe or a device might never end.

    Raises:
      UserError: `path` exists and is not a regular file.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a regular file: remove it")
    return path.read_bytes()


def to_json(values: Any, indent: int | None = None) -> str:
    """Return JSON, with null for NaN and infinity, which JSON does not have."""
    return json.dumps(_finite(values), indent=indent, allow_nan=False)


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def check_writable(path: Path) -> None:
    """Create the folder of `path`; raise an OSError if the file cannot be written."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
    temporary = temporary_path(path)
    temporary.touch()
    temporary.unlink()


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files and folders of killed writers.

    Call it only while no other process writes: its temporary file is removed too.

    Args:
      path: a file or folder, for its temporary ones beside it; and of a folder all
        directly in it.
    """
    digits, name = "[0-9a-f]" * _TOKEN, Path(escape(path.name))
    found = [*path.parent.glob(f".{name.stem}.{digits}.tmp{name.suffix}")]
    if path.is_dir():
        found += path.glob(f".*.{digits}.tmp*")
    for temporary in found:
        if temporary.is_dir() and not temporary.is_symlink():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return a unique name beside `path`."""
    # The suffix stays last: some writers choose the format by it.
    return path.with_name(
        f".{path.stem}.{secrets.token_hex(_TOKEN // 2)}.tmp{path.suffix}"
    )


@contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, created if missing and deleted if left empty.

    The operating system releases the lock when the process ends, even if it is killed.
    Where a file system has no such locks, the file is the lock: of a killed process on
    this machine it is released, of one on another it has to be deleted.

    Raises:
      InUseError: another process holds the lock.
      UserError: `workdir` is inside a file, or a broken link, or cannot be locked.
    """
    folders = (workdir, *workdir.parents)
    missing = [folder for folder in folders if not folder.exists()]
    for folder in folders:
        if os.path.lexists(folder) and not folder.is_dir():
            raise UserError(f"{folder} is not a folder: choose another --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    file = workdir / ".lock"
    if file.exists() and not file.is_file():  # opening a pipe might never end
        raise UserError(f"{file} is not a regular file: remove it")
    try:
        with _acquired(file):
            with suppress(PermissionError):  # Windows locks the content too
                file.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
            try:
                yield
            finally:
                with suppress(PermissionError):  # Windows: it is deleted when released
                    file.unlink(missing_ok=True)
    finally:
        with suppress(OSError):  # not empty: it holds a run
            for folder in missing:
                folder.rmdir()


def lock_holder(workdir: Path) -> str:
    """Return the process and the host that hold a folder's lock, if they are known."""
    with suppress(OSError):  # there is none; or Windows has locked the content too
        return (workdir / ".lock").read_text()
    return ""


def _acquired(file: Path) -> AbstractContextManager[Any]:
    """Return the context of a lock that is held already; see `locked`."""
    try:
        return FileLock(file).acquire(timeout=0)
    except Timeout:
        process, host = [*lock_holder(file.parent).split(), "?", "?"][:2]
        remedy = "wait until it ends, stop it, or choose another --workdir"
        if host != socket.gethostname():
            remedy += f"; if it was killed, delete {file}"
        raise InUseError(
            f"{file.parent} is in use by process {process} on {host}: {remedy}"
        ) from None
    except OSError as error:
        if error.filename is not None:  # the file could not be opened
            raise
        file.unlink()
        raise UserError(
            f"{file.parent} cannot be locked ({error.strerror}): choose a --workdir on "
            "a file system with locks, such as a local one"
        ) from None
