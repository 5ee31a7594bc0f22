"""One process at a time in a run's folder."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from dt_jax.utils.errors import UserError


class InUseError(UserError):
    """Another process holds the lock."""


@contextmanager
def alone_in(workdir: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is made; left empty, it goes again.

    The lock is the system's, on a file that tells who holds it. It ends with the
    process, however that ends: the file that a killed one leaves is in nobody's way.

    Raises:
      InUseError: another process holds it.
      UserError: `workdir` can be no folder.
    """
    made = [path for path in (workdir, *workdir.parents) if not path.exists()]
    for path in (workdir, *workdir.parents):
        if os.path.lexists(path) and not path.is_dir():
            raise UserError(f"{path} is no folder: choose another --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    file = workdir / ".lock"
    try:
        with FileLock(file, timeout=0):
            file.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
            try:
                yield
            finally:
                file.unlink(missing_ok=True)
    except Timeout:
        note = file.read_text() if file.exists() else ""
        process, host = [*note.split(), "?", "?"][:2]
        raise InUseError(
            f"{workdir} is in use by process {process} on {host}: wait until it ends, "
            "stop it, or choose another --workdir"
        ) from None
    finally:
        with suppress(OSError):  # not empty: there is a run
            for path in made:
                path.rmdir()
