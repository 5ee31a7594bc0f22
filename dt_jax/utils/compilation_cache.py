"""Compiled programs are kept from one start of a program to the next."""

import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path

import platformdirs

_FROM_SECONDS = 0.5  # what compiles faster isn't worth a file
_MOST_BYTES = 1 << 30  # the least recently used go first


def keep_compiled() -> None:
    """Have JAX keep what it compiles, in a folder that belongs to the user alone.

    Not in DT_JAX_DATA: what lies here is run, and data may be shared with others. Each
    kind of processor has a folder of its own, for the programs of one may crash on
    another. JAX's own variable, JAX_COMPILATION_CACHE_DIR, wins; empty, nothing is
    kept. Nor is it where the folder can't be made.
    """
    import jax  # only here: whoever looks into the folder needs no JAX

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = compiled_folder() / _processor()
    with suppress(OSError):
        for each in (folder.parent, folder):  # or another could be put in its place
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _FROM_SECONDS)


def compiled_folder() -> Path:
    """Return where compiled programs are kept, a folder for each kind of processor."""
    return Path(platformdirs.user_cache_dir("dt_jax")) / "compiled"


def _processor() -> str:
    """Return a name for what this machine's processor can do."""
    can = platform.machine() + platform.processor()
    with suppress(OSError):  # Linux
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        can += "".join(sorted({x for x in lines if x.startswith(("flags", "model"))}))
    return hashlib.sha256(can.encode()).hexdigest()[:16]
