"""Whether, and from where, a run in a folder may go on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dt_jax.config.config import from_dict
from dt_jax.config.from_data import KEYS
from dt_jax.runs.checkpoint import Checkpoint, find, were_there
from dt_jax.utils.errors import UserError

# What a run may go on with differently: none of it bears on the updates done so far.
# data_path is among them because a file may move; its content is held by its hash.
MAY_CHANGE = {
    "project",
    "group",
    "name",
    "data_path",
    "update_steps",
    "num_workers",
    "steps_per_dispatch",
    "device_memory_share",
    "memory_limit_gb",
    "target_returns",
    "eval_episodes",
    "eval_every",
    "eval_seed",
    "log_every",
    "loggers",
    "checkpoint_every",
    "keep_checkpoints",
    "checkpoints_path",
    "deterministic",
    "num_devices",
    "device",
}


def last_checkpoint(
    workdir: Path, config: ConfigDict
) -> tuple[Checkpoint, dict[str, Any]] | None:
    """Return where the run in `workdir` stands, with its record; None for a new run.

    Raises:
      UserError: the run there is another than `config` describes, or none of its
        checkpoints is whole.
    """
    folder = workdir / "checkpoints"
    checkpoints = find(folder)
    if not checkpoints:
        if were_there(folder):
            raise UserError(
                f"no checkpoint in {folder} is whole any more: restore one, or choose "
                "another --workdir to start anew"
            )
        return None
    record = checkpoints[-1].record()
    if "imported_from" in record["dataset"]:
        raise UserError(
            f"{workdir} was imported, and can't be gone on with: begin a run with it, "
            f"by --config.init_from={workdir} and another --workdir"
        )
    before = from_dict(record["config"])
    if (config.init_from is None) != (before.init_from is None):
        raise UserError(
            f"{workdir} holds another run (init_from {before.init_from} -> "
            f"{config.init_from}): init_from only begins a run; set it back, or choose "
            "another --workdir"
        )
    config = as_before(config, before)
    changed = [
        f"{key} {before[key]} -> {config[key]}"
        for key in config
        if key not in MAY_CHANGE and before[key] != config[key]
    ]
    if changed:
        raise UserError(
            f"{workdir} holds another run ({', '.join(changed)}): set these back, or "
            "choose another --workdir"
        )
    return checkpoints[-1], record


def as_before(config: ConfigDict, before: Mapping[str, Any]) -> ConfigDict:
    """Return the configuration with what it leaves open as the run has it.

    And with its init_from, which is not read again: the source may have moved.
    """
    filled = ConfigDict(config.to_dict())
    filled.init_from = before["init_from"]
    for key in KEYS:
        if config[key] is None:
            filled[key] = before[key]
    return filled.lock()


def check_same_data(workdir: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise a UserError unless both identities are of the same file content."""
    if before["sha256"] != now["sha256"]:
        raise UserError(
            f"{workdir} was trained on {before['source']}, and the content of "
            f"{now['source']} is another (sha256 {before['sha256'][:12]}... -> "
            f"{now['sha256'][:12]}...): restore the file, or choose another --workdir"
        )


def is_complete(
    checkpoint: Checkpoint, record: dict[str, Any], config: ConfigDict
) -> bool:
    """Tell whether a run whose last checkpoint this is has nothing left to do."""
    done = checkpoint.step >= config.update_steps
    return done and owed(checkpoint, record) is None


def owed(checkpoint: Checkpoint, record: dict[str, Any]) -> dict[str, float] | None:
    """Return what a stop in an evaluation left to be made up for, if it still is."""
    return record.get("owed") if checkpoint.score is None else None
