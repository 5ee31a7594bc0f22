"""What this machine has room for: asked before memory or disk is taken, not after."""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from dt_jax.utils.errors import UserError

MOST_DEFLATED = 1032  # bytes that one byte of gzip's or .npz's can stand for


def memory() -> int:
    """Return the bytes that the machine has, or the container around us."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such group, or "max"
            limits.append(int((Path("/sys/fs/cgroup") / group).read_text()))
    return min(limits)


def check_memory(size: float, name: str) -> None:
    """Raise a UserError if `size` bytes are more than the machine has.

    A file of a few kilobytes can announce any number of rows.
    """
    if size > (there := memory()):
        raise UserError(
            f"{name} would take {size / 1e9:.3g} GB of memory, and this machine has "
            f"{there / 1e9:.3g}: split the data, or get the file again if it should "
            "not be so large"
        )


def check_room(folder: Path, size: float) -> None:
    """Raise what a full disk would, if it could not take `size` bytes more."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(errno.ENOSPC, f"only {free / 1e9:.3g} GB are free there")
