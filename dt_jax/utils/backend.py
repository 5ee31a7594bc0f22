"""JAX's back end: the device it uses, and the cache of compiled programs."""

import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path

from dt_jax.utils.errors import UserError
from dt_jax.utils.files import user_cache_folder

_MIN_COMPILE_SECONDS = 0.5  # programs that compile faster are not cached
_DEBUGGING = (  # JAX's settings, and environment variables, that stop every run
    "jax_disable_jit",
    "jax_transfer_guard",
    "jax_transfer_guard_host_to_device",
    "jax_transfer_guard_device_to_host",
)
_MAX_CACHE_BYTES = 1 << 30  # the least recently used programs are deleted first


def start_backend(device: str, deterministic: bool) -> None:
    """Start JAX's back end on `config.device`, with the compilation cache.

    A command calls this before anything else uses a device.

    Raises:
      UserError: JAX finds no such device.
    """
    import jax

    enable_compilation_cache()
    if deterministic:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    if device != "auto":
        # The CPU stays listed: callbacks to the environments put their inputs there.
        platforms = {"cpu": "cpu", "tpu": "tpu,cpu"}.get(device, "cuda,cpu")
        jax.config.update("jax_platforms", platforms)
    check_backend(device)


def check_backend(device: str) -> None:
    """Raise a UserError unless JAX's back end is, or can be started on, `device`."""
    import jax

    for name in _DEBUGGING:
        value = str(getattr(jax.config, name))
        if value == "True" or value.startswith("disallow"):
            raise UserError(
                f"{name.upper()}={value}: training and evaluation need compiled "
                "programs that get arrays of the host; unset it"
            )
    try:
        found = jax.default_backend()
        problem = f"JAX uses {found}"
    except (RuntimeError, AssertionError) as error:
        why = f"JAX reports: {error}"
        if isinstance(error, AssertionError):  # without a text
            why = f"JAX_PLATFORMS={jax.config.jax_platforms}"  # type: ignore[attr-defined]
        found, problem = None, f"JAX finds no such device ({why})"
    # Without its CUDA package JAX falls back to the CPU silently.
    if found is None or device.replace("cuda", "gpu") not in ("auto", found):
        raise UserError(
            f"config.device={device}: {problem}; a GPU needs pip install -r "
            "requirements-cuda.txt, --config.device=cpu needs nothing"
        )


def enable_compilation_cache() -> None:
    """Have JAX cache compiled programs in a folder that only the user can write.

    Not in DT_JAX_DATA: these programs are executed, and data may be shared with others.
    Each kind of processor has its own folder, because programs compiled for one may
    crash on another. JAX_COMPILATION_CACHE_DIR takes precedence; if it is empty,
    nothing is cached. Nor is it where the folder cannot be created, or there is no home
    folder.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    with suppress(OSError, UserError):
        folder = compilation_cache_folder() / _processor()
        for each in (folder.parent, folder):  # both, or one could be replaced
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", _MAX_CACHE_BYTES)
        jax.config.update(
            "jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS
        )


def compilation_cache_folder() -> Path:
    """Return the folder of compiled programs, with one folder per kind of processor."""
    return user_cache_folder() / "compiled"


def _processor() -> str:
    """Return a name for the instruction set of this machine."""
    features = platform.machine() + platform.processor()
    with suppress(OSError):  # Linux
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features += "".join(sorted({x for x in lines if x[:5] in ("flags", "model")}))
    return hashlib.sha256(features.encode()).hexdigest()[:16]
