"""Whether, and from where, the run in a folder can be resumed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dt_jax.config.keys import keys_of
from dt_jax.runs.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    choose_checkpoint,
    has_checkpoints,
)
from dt_jax.training.stages import stage_configs
from dt_jax.training.trainer import pending_metrics
from dt_jax.utils.errors import UserError


def last_checkpoint(workdir: Path, config: ConfigDict) -> Checkpoint | None:
    """Return the checkpoint that the run in `workdir` resumes from; None for a new run.

    Raises:
      UserError: the folder holds another run than `config` describes, or all of its
        checkpoints are corrupt.
    """
    if not has_checkpoints(workdir / "checkpoints"):
        return None
    last = choose_checkpoint(workdir / "checkpoints", "last")
    if "imported_from" in last.record["dataset"]:
        raise UserError(
            f"{workdir} was imported and cannot be resumed: start a run from it with "
            f"--config.init_from={workdir} and another --workdir"
        )
    before = last.config
    if config.agent != before.agent:
        raise UserError(
            f"{workdir} holds a run of the agent {before.agent}, not {config.agent}: "
            "choose another --workdir"
        )
    config = resumed_config(config, before)
    changed = [
        f"{name} {before[name]} -> {config[name]}"
        for name, key in keys_of(config.agent).items()
        if not key.resumable and before[name] != config[name]
    ]
    if changed:
        now, then = stage_configs(config), stage_configs(before)
        stages = [name for name in now if now[name] != then.get(name)]
        with_stages = f", with its stage {', '.join(stages)}" if stages else ""
        raise UserError(
            f"{workdir} holds another run ({', '.join(changed)}){with_stages}: set "
            "these back, or choose another --workdir"
        )
    return last


def resumed_config(config: ConfigDict, before: Mapping[str, Any]) -> ConfigDict:
    """Return the configuration with what it leaves to the data as the run has it.

    And with the run's init_from, which is not read again: the source may have moved.
    """
    filled = ConfigDict(config.to_dict())
    if config.init_from and before["init_from"]:
        filled.init_from = before["init_from"]
    for name, key in keys_of(config.agent).items():
        if key.from_data and config[name] is None:
            value = before[name]
            filled[name] = tuple(value) if isinstance(value, list) else value
    return filled.lock()


def is_complete(checkpoint: Checkpoint, config: ConfigDict) -> bool:
    """Return whether a run with this last checkpoint has nothing left to do."""
    done = checkpoint.step >= config.update_steps
    return done and pending_metrics(checkpoint) is None


def delete_leftovers(workdir: Path, config: ConfigDict) -> None:
    """Delete what a complete run has left if it was killed after its last save."""
    with CheckpointWriter(workdir / "checkpoints", config.keep_checkpoints):
        pass
