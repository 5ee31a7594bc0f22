"""A run's folder made of an agent that another program has trained."""

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dt_jax.agents.dt import SCALING
from dt_jax.config.load import validate
from dt_jax.config.rules import ADDED
from dt_jax.interop.interchange import Trained, new_folder
from dt_jax.runs.checkpoint import CheckpointWriter
from dt_jax.runs.folder import describe
from dt_jax.training.warm_start import check_shapes
from dt_jax.utils.errors import UserError
from dt_jax.utils.versions import versions

# Keys that bear on no action. What is not told of a run is here as CORL's dt.py has it.
_UNTOLD: dict[str, Any] = {
    "project": "dt_jax",
    "group": "imported",
    "name": "imported",
    "env_name": None,
    "data_path": None,
    "split": "corl",
    "holdout_fraction": 0.0,
    "memory_limit_gb": None,
    "init_from": None,
    "env_backend": "auto",
    "reference_scores": None,
    "attention_dropout": 0.1,
    "residual_dropout": 0.1,
    "embedding_dropout": 0.1,
    "learning_rate": 1e-4,
    "betas": (0.9, 0.999),
    "weight_decay": 1e-4,
    "clip_grad": 0.25,
    "lr_schedule": "warmup_constant",
    "batch_size": 64,
    "update_steps": 100_000,
    "warmup_steps": 10_000,
    "num_workers": 4,
    "compute_dtype": "float32",
    "steps_per_dispatch": 1,
    "device_memory_share": 0.5,
    "target_returns": None,
    "eval_episodes": 100,
    "eval_every": 10_000,
    "log_every": 1,
    "checkpoint_every": 100_000,
    "keep_checkpoints": 2,
    "deterministic": False,
    "train_seed": 10,
    "eval_seed": 42,
}
# Of the machine and the folder that it was trained in, whatever is told of them.
_HERE = {
    "data_path": None,
    "init_from": None,
    "checkpoints_path": None,
    "num_seeds": 1,
    "num_devices": None,
    "device": "auto",
}


def write_run(workdir: Path, source: Path, trained: Trained, data: dict) -> None:
    """Make the folder of a run whose one checkpoint, at step 0, is what was imported.

    Args:
      workdir: not there yet, or empty.
      source: the file or the folder that it comes from, for error lines.
      trained: what was read there.
      data: what the record says in the place of a dataset's identity: source, sha256
        and imported_from.

    Raises:
      UserError: there is something at `workdir`, a value is not what its key expects,
        or the parameters are not those of the network that the values describe.
    """
    config = ConfigDict({**ADDED, **_UNTOLD, **trained.config, **_HERE})
    try:
        validate(config, trains=False)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    for key in ("max_action", "reward_scale"):  # which data would tell
        if config[key] is None:
            raise UserError(f"{source}: {key} is None there: give --{key}=...")
    scaling = {key: trained.scaling[key] for key in SCALING}
    check_shapes(str(source), trained.params, config.lock(), scaling)
    about = versions()
    record = {
        "config": config.to_dict(),
        **{key: array.tolist() for key, array in scaling.items()},
        "dataset": data,
        "versions": about,
        "step": 0,
        "owed": None,
    }
    with new_folder(workdir) as temporary:
        describe(temporary, config, about | {"dataset": data})
        with CheckpointWriter(temporary / "checkpoints", keep=2) as writer:
            # No optimiser's state: nothing goes on from here.
            writer.save(0, trained.params, {"step": np.int32(0)}, record, None)
