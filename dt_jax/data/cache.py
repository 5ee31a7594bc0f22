"""The folder where datasets are kept, and the records that they are as they came."""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from dt_jax.utils.errors import UserError
from dt_jax.utils.files import remove_leftovers, user_path, write_text


def cache_folder() -> Path:
    """Return where datasets are kept: DT_JAX_DATA, or else the user's cache folder."""
    if folder := os.environ.get("DT_JAX_DATA"):
        return user_path(folder).absolute()
    return Path(platformdirs.user_cache_dir("dt_jax"))


@contextmanager
def writing_to_cache(size: float) -> Iterator[Path]:
    """Yield the cache folder, to write `size` bytes in it.

    Raises:
      UserError: it can't be written to, or is full.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror}; {size / 1e9:.3g} GB are to be kept there: "
            "make room, or name another folder by DT_JAX_DATA"
        ) from None


@contextmanager
def alone_with(path: Path, doing: str) -> Iterator[None]:
    """Keep other processes from a file of the cache; the second says so, and waits.

    The lock ends with the process, however that ends. What a killed one has left of
    temporary files is removed.

    Args:
      path: the file; its folder is made.
      doing: what the line says of the process that was first, such as "collecting".

    Raises:
      UserError: the folder can't be written to.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock.acquire(timeout=0)
    except Timeout:
        print(f"another process is {doing} {path}; waiting for it", file=sys.stderr)
        held = lock.acquire()
    except OSError as error:
        raise UserError(
            f"{path.parent}: {error.strerror}; name another folder by DT_JAX_DATA"
        ) from None
    with held:
        remove_leftovers(path)
        remove_leftovers(_record(path))
        try:
            yield
        finally:
            # While it is held: who waits notices that this file is no longer the lock.
            Path(lock.lock_file).unlink(missing_ok=True)


def kept_with(path: Path) -> list[Path]:
    """Return what there is of a file of the cache: itself, its record, a part of it."""
    part = path.with_name(f".{path.name}.part")
    every = path, _record(path), part, part.with_name(f"{part.name}.json")
    return [file for file in every if file.exists()]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_sha256(path: Path, sha256: str) -> None:
    """Write `<name>.sha256` beside `path`, which `sha256sum --check` can read."""
    write_text(_record(path), f"{sha256}  {path.name}\n")


def is_recorded(path: Path) -> bool:
    """Tell whether a SHA-256 lies beside `path`."""
    return _record(path).exists()


def is_as_recorded(path: Path) -> bool:
    """Tell whether `path` is there, with its own SHA-256 beside it."""
    try:
        return is_recorded(path) and _recorded(path) == sha256_of(path)
    except FileNotFoundError:
        return False


def verify_sha256(path: Path, sha256: str) -> None:
    """Hold a file against the record beside it; one without a record may be anything.

    Args:
      path: the file.
      sha256: its SHA-256 as it is now, in hexadecimal.

    Raises:
      UserError: the record tells another SHA-256, or is damaged.
    """
    if not is_recorded(path):
        return
    record, recorded = _record(path), _recorded(path)
    if recorded is None:
        raise UserError(
            f"{record} is damaged: it should be one line as sha256sum writes it; "
            f"delete it, and {path.name} too if that may be damaged as well"
        )
    if recorded != sha256:
        raise UserError(
            f"{path} is not the file that was downloaded: its SHA-256 is {sha256}, not "
            f"{recorded}; delete it, and it is downloaded anew, or delete "
            f"{record.name} if you put another there"
        )


def _recorded(path: Path) -> str | None:
    """Return the SHA-256 that is recorded; None if the record is damaged."""
    text = _record(path).read_text(errors="replace")
    found = re.match(r"[0-9a-f]{64}\b", text)
    return found[0] if found else None


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
