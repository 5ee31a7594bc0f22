"""The provenance of a run: versions of the software, device and revision."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_PACKAGES = (
    "dt_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "h5py",
    "envpool",
)


def versions() -> dict[str, Any]:
    """Return what determines the results of a run besides its config and data."""
    import jax  # here, because `dt_jax.__version__` needs no JAX

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": jax.devices()[0].device_kind,
        "back_end": jax.default_backend(),
        "git_revision": _git_revision(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return None


def _git_revision() -> str | None:
    """Return the commit of the checkout that runs, "+changes" if it has been edited."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "versions.py")  # fails in another repository
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):  # installed, or no git here
        return None
