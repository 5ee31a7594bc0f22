"""Manifests: they make a checkpoint count, and detect damage.

checkpoints/1000.json        the record, the score, and the SHA-256 of each file
checkpoints/1000.unfinished  exists while the checkpoint is being saved or deleted
checkpoints/0.unfinished     exists from the start of a run to its first checkpoint
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from dt_jax.utils.errors import UserError
from dt_jax.utils.files import read_regular, to_json, write_text

FORMAT = 4


class Manifest(NamedTuple):
    """What a checkpoint holds besides arrays."""

    score: float | None  # of the evaluation at this step, the higher the better
    record: dict[str, Any]  # what the parameters mean nothing without, as JSON


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
    content = json.loads(to_json(content))
    content["sha256"] = _hash(content)
    write_text(folder / f"{step}.json", to_json(content, indent=1))


def read(folder: Path, step: int) -> Manifest:
    """Return the manifest of a checkpoint, after comparing all files with it.

    Raises:
      DamagedError: the manifest is damaged, or a file differs.
      FileNotFoundError: the manifest is missing, or a file deleted meanwhile.
      UserError: another version of dt_jax wrote it.
    """
    path = folder / f"{step}.json"
    try:
        content = json.loads(read_regular(path))
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
        score = content["score"]
        if score is not None and not math.isfinite(score):
            score = None  # it would rank above or below all others
        manifest = Manifest(score, content["record"])
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise DamagedError(f"its manifest {path.name} is damaged") from None
    found = _hashes(folder, step)
    if not found:
        raise DamagedError("its folder is missing or empty")
    for name in sorted(saved.keys() | found):
        if name not in found:
            raise DamagedError(f"{name} missing")
        if saved.get(name) != found[name]:
            raise DamagedError(f"{name} not as it was saved")
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
