"""The dataset cache folder: location, locks and SHA-256 records."""

import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dt_jax.utils.errors import UserError
from dt_jax.utils.files import (
    remove_leftovers,
    user_cache_folder,
    user_path,
    write_text,
)


def cache_folder() -> Path:
    """Return the cache folder: DT_JAX_DATA, or the user's default cache folder.

    Raises:
      UserError: there is none.
    """
    if folder := os.environ.get("DT_JAX_DATA"):
        return user_path(folder).absolute()
    return user_cache_folder()


@contextmanager
def cache_space(size: float) -> Iterator[Path]:
    """Yield the cache folder, which has `size` bytes free at the start.

    Raises:
      UserError: the folder cannot be written to, or the disk is full; also for an
        OSError inside the context.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if size > free:
            raise OSError(errno.ENOSPC, f"only {free / 1e9:.3g} GB are free")
        yield folder
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror or error}; {size / 1e9:.3g} GB are needed "
            "there: free some space, or set DT_JAX_DATA to another folder"
        ) from error


@contextmanager
def cache_lock(path: Path, action: str) -> Iterator[None]:
    """Hold the lock of a cached file; a second process reports that it waits.

    The lock ends with the process, even if it is killed. Temporary files of killed
    processes are removed.

    Args:
      path: the file; its folder is created.
      action: what the holder does, for the waiting process's message: "downloading".

    Raises:
      UserError: the folder cannot be written to.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock.acquire(timeout=0)
    except Timeout:
        print(
            f"another process is {action} {path}; waiting for it (if there is none, "
            f"delete {lock.lock_file})",
            file=sys.stderr,
        )
        held = lock.acquire()
    except OSError as error:
        raise UserError(
            f"{path.parent}: {error.strerror}; set DT_JAX_DATA to another folder"
        ) from error
    with held:
        remove_leftovers(path)
        remove_leftovers(_record_of(path))
        try:
            yield
        finally:
            # While it is held: a waiting process notices that the lock file is gone.
            Path(lock.lock_file).unlink(missing_ok=True)


def download_folder(path: Path) -> Path:
    """Return the hidden folder into which `path` is downloaded."""
    return path.with_name(f".{path.name}.download")


def cached_files(path: Path) -> list[Path]:
    """Return the files of a cached dataset: itself, its record, partial downloads."""
    files = path, _record_of(path), *download_folder(path).glob("*")
    return [file for file in files if file.exists()]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_sha256(path: Path, sha256: str) -> None:
    """Write `<name>.sha256` beside `path`, in the format of `sha256sum --check`."""
    write_text(_record_of(path), f"{sha256}  {path.name}\n")


def has_record(path: Path) -> bool:
    """Return whether there is a SHA-256 record beside `path`."""
    return _record_of(path).exists()


def matches_record(path: Path) -> bool:
    """Return whether `path` exists and matches the SHA-256 record beside it."""
    has_both = path.exists() and has_record(path)
    return has_both and _read_record(path) == sha256_of(path)


def verify_sha256(path: Path, sha256: str) -> None:
    """Compare a file's SHA-256 with its record; without a record any file passes.

    Args:
      path: the file.
      sha256: its present SHA-256, in hexadecimal.

    Raises:
      UserError: the record contains something else.
    """
    if has_record(path) and _read_record(path) != sha256:
        record = _record_of(path).name
        raise UserError(
            f"{path} is not the file that was downloaded: its SHA-256 is {sha256}, "
            f"{record} contains {_read_record(path)!r}; delete both to download it "
            f"again, or only {record} if you replaced the file on purpose"
        )


def _read_record(path: Path) -> str:
    return _record_of(path).read_text(errors="replace").partition(" ")[0]


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
