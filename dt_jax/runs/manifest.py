"""Manifests: they make a checkpoint count, and detect damage.

checkpoints/1000.json        the record, the score, and the SHA-256 of each file
checkpoints/1000.unfinished  exists while the checkpoint is being saved or deleted
"""

import hashlib
import json
from collections.abc import Container
from pathlib import Path
from typing import Any, NamedTuple

from dt_jax.utils.errors import UserError
from dt_jax.utils.files import write_text

FORMAT = 4


class Manifest(NamedTuple):
    """What a checkpoint holds besides arrays.

    Attributes:
      score: of the evaluation at this step, the higher the better; None without one.
      record: what the parameters mean nothing without, as JSON.
    """

    score: float | None
    record: dict[str, Any]


class DamagedError(Exception):
    """A checkpoint is not as it was saved; the message names the file."""


def write(folder: Path, step: int, manifest: Manifest) -> None:
    """Write the manifest of the checkpoint of `step` in `folder` as it is now."""
    content = {
        "format": FORMAT,
        "step": step,
        **manifest._asdict(),
        "files": _hashes(folder, step),
    }
    content["sha256"] = _hash(content)
    write_text(folder / f"{step}.json", json.dumps(content, indent=1))


def read(folder: Path, step: int) -> Manifest:
    """Return the manifest of a checkpoint, after comparing all files with it.

    Raises:
      DamagedError: a file differs, or the manifest is missing or damaged.
      FileNotFoundError: the checkpoint is being deleted by the run meanwhile.
      UserError: another version of dt_jax wrote it.
    """
    path = folder / f"{step}.json"
    try:
        content = json.loads(path.read_bytes())
        sha256 = content.pop("sha256")
        if sha256 != _hash(content):
            raise ValueError(sha256)
        if content["step"] != step:
            raise DamagedError(f"its manifest {path.name} is of another step")
        if content["format"] != FORMAT:
            raise UserError(
                f"{folder / str(step)} has checkpoint format {content['format']}; this "
                f"version of dt_jax reads format {FORMAT}"
            )
        saved = content["files"]
        manifest = Manifest(content["score"], content["record"])
    except FileNotFoundError:
        if (folder / str(step)).exists() and not path.exists():
            raise DamagedError(f"its manifest {path.name} is missing") from None
        raise
    except (ValueError, KeyError, AttributeError, TypeError):
        raise DamagedError(f"its manifest {path.name} is damaged") from None
    found = _hashes(folder, step)
    if saved != found:
        raise DamagedError(_difference(saved, found))
    return manifest


def unfinished(folder: Path, step: int) -> Path:
    """Return the file that exists while a checkpoint is being saved or deleted."""
    return folder / f"{step}.unfinished"


def finished_steps(folder: Path) -> set[int]:
    """Return the steps whose save has ended, damaged or not."""
    names = {path.stem for path in folder.glob("*.json")}
    names |= {path.name for path in folder.glob("*") if path.is_dir()}
    steps = {int(name) for name in names if name.isdecimal()}
    return {step for step in steps if not unfinished(folder, step).exists()}


def is_leftover(path: Path, valid: Container[int]) -> bool:
    """Return whether a file or folder belongs to a checkpoint that is not valid."""
    step, _, kind = path.name.partition(".")
    if not step.isdecimal():  # not a checkpoint's
        return False
    if kind in ("", "json"):
        return int(step) not in valid
    return kind == "unfinished" or kind.startswith("orbax")


def _difference(saved: dict[str, str], found: dict[str, str]) -> str:
    """Return how the hashes of files differ from those of a manifest, in words."""
    if not found:
        return "its folder is missing or empty"
    parts = {
        "missing": sorted(saved.keys() - found),
        "not as it was saved": sorted(
            name for name, sha256 in found.items() if saved.get(name) != sha256
        ),
    }
    return ", ".join(
        f"{names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)} {what}"
        for what, names in parts.items()
        if names
    )


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _hashes(folder: Path, step: int) -> dict[str, str]:
    """Return the SHA-256 of each file of a checkpoint, by its path inside it."""
    top = folder / str(step)
    hashes = {}
    for path in sorted(p for p in top.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        hashes[str(path.relative_to(top))] = digest.hexdigest()
    return hashes
