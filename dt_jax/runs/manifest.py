"""Manifests: what vouches for a checkpoint on disk.

checkpoints/1000.json        the sha256 of each file in checkpoints/1000, and its own
checkpoints/1000.unfinished  while 1000 is being saved or deleted
"""

import hashlib
import json
from collections.abc import Container
from pathlib import Path
from typing import Any

from dt_jax.utils.files import write_text

FORMAT_VERSION = 3
READABLE = (2, FORMAT_VERSION)  # in 2, manifests lack their own version and sha256


class DamagedError(Exception):
    """A checkpoint is not as it was saved; the message says which file is not."""


def write(folder: Path, step: int, score: float | None) -> None:
    """Vouch for the checkpoint of `step` in `folder` as it is now."""
    manifest: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "step": step,
        "score": score,
        "files": _hashes(folder, step),
    }
    manifest["sha256"] = _hash_of(manifest)
    write_text(folder / f"{step}.json", json.dumps(manifest, indent=1))


def verified_score(folder: Path, step: int) -> float | None:
    """Return the score of a checkpoint that is as it was saved.

    Raises:
      DamagedError: it is not, or its manifest is lost or damaged.
      FileNotFoundError: it is being deleted by a run that goes on meanwhile.
    """
    manifest = _read(folder, step)
    saved, there = manifest["files"], _hashes(folder, step)
    if saved != there:
        raise DamagedError(_difference(saved, there))
    return manifest["score"]


def unfinished(folder: Path, step: int) -> Path:
    """Return the file that is there while a checkpoint is being saved or deleted."""
    return folder / f"{step}.unfinished"


def finished(folder: Path) -> set[int]:
    """Return the steps whose save had ended, whatever is there of them now."""
    there = {path.stem for path in folder.glob("*.json")}
    there |= {path.name for path in folder.glob("*") if path.is_dir()}
    steps = {int(step) for step in there if step.isdecimal()}
    return {step for step in steps if not unfinished(folder, step).exists()}


def is_left_over(path: Path, whole: Container[int]) -> bool:
    """Tell whether a file or folder is of a checkpoint, and of none that is whole."""
    step, _, kind = path.name.partition(".")
    if not step.isdecimal():  # not ours
        return False
    if kind in ("", "json"):
        return int(step) not in whole
    return kind == "unfinished" or kind.startswith("orbax")


def _read(folder: Path, step: int) -> dict[str, Any]:
    path = folder / f"{step}.json"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if (folder / str(step)).exists() and not path.exists():
            raise DamagedError(f"its manifest {path.name} is missing") from None
        raise
    try:
        manifest = json.loads(content)
        if manifest.keys() != {"step", "score", "files"}:  # else of format 2
            sha256 = manifest.pop("sha256")
            if sha256 != _hash_of(manifest):
                raise ValueError(sha256)
        if manifest["step"] != step:
            raise DamagedError(f"its manifest {path.name} is of another step")
    except (ValueError, KeyError, AttributeError):
        raise DamagedError(f"its manifest {path.name} is damaged") from None
    return manifest


def _difference(saved: dict[str, str], there: dict[str, str]) -> str:
    """Return the words on how files, by their hashes, are not those of a manifest."""
    if not there:
        return "its folder is missing or empty"
    missing = sorted(saved.keys() - there)
    other = sorted(name for name, sha256 in there.items() if saved.get(name) != sha256)
    parts = {"missing": missing, "not as it was saved": other}
    return ", ".join(
        f"{names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)} {what}"
        for what, names in parts.items()
        if names
    )


def _hash_of(manifest: dict[str, Any]) -> str:
    """Return the sha256 of a manifest's other entries."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _hashes(folder: Path, step: int) -> dict[str, str]:
    """Return the sha256 of each file of a checkpoint, by its path inside it."""
    top = folder / str(step)
    hashes = {}
    for path in sorted(p for p in top.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        hashes[str(path.relative_to(top))] = digest.hexdigest()
    return hashes
