"""Training: from a configuration to a run's folder."""

import hashlib
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from dt_jax import envs
from dt_jax.agents.dt import SCALING
from dt_jax.analysis import summary
from dt_jax.config import from_data as data_defaults
from dt_jax.data.registry import DatasetSpec
from dt_jax.datasets import Dataset, load_dataset
from dt_jax.datasets.describe import action_range_warning, lengths_summary
from dt_jax.envs.spaces import action_units
from dt_jax.runs import folder as runs
from dt_jax.runs.metrics import read_metrics
from dt_jax.training import warm_start
from dt_jax.training.extras import check_packages
from dt_jax.training.resume import (
    as_before,
    check_same_data,
    is_complete,
    last_checkpoint,
)
from dt_jax.training.trainer import Trainer
from dt_jax.training.warm_start import WarmStart
from dt_jax.types import Params
from dt_jax.utils import distributed
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import remove_leftovers
from dt_jax.utils.lock import alone_in


def train_and_evaluate(config: ConfigDict, workdir: Path) -> None:
    """Train, evaluate and keep checkpoints until `update_steps` updates are done.

    A run that is in `workdir` already goes on from its last checkpoint, or is said to
    be complete.

    Args:
      config: validated, as configs/default.py describes it.
      workdir: the run's folder, made if it is not there.

    Raises:
      UserError: the data, the environment or the run in `workdir` doesn't fit the
        configuration, the loss is no longer finite, or another process is at it.
      Stopped: a signal has come; what was trained is saved.
    """
    with ExitStack() as stack:
        with distributed.all_or_none():
            if distributed.leads():
                stack.enter_context(alone_in(workdir))
                for folder in (workdir, workdir / "eval", workdir / "checkpoints"):
                    remove_leftovers(folder)
        lock = workdir / ".lock"  # the leader's: do all see it?
        distributed.check_same(
            workdir=lock.read_text() if lock.exists() else "",
            **{f"config.{key}": config[key] for key in config},
        )
        trainer, config, dataset = _prepare(config, workdir)
        if trainer is not None:
            trainer.run()
        if distributed.leads():
            _summarise(workdir, config, dataset)


def _prepare(
    config: ConfigDict, workdir: Path
) -> tuple[Trainer | None, ConfigDict, dict[str, Any]]:
    """Return what goes on with the run in `workdir`, None if the run is complete.

    And its configuration with nothing left open, and the identity of its data.

    Several processes agree after each step, and inside none: who has failed in one
    would miss what the others do together.
    """
    with distributed.all_or_none():
        last, record = last_checkpoint(workdir, config) or (None, {})
    distributed.check_same(checkpoint=last and last.step)
    if last is not None:
        config = as_before(config, record["config"])
        if is_complete(last, record, config):
            print(
                f"{workdir}: this run is complete, with {last.step} updates "
                "(python -m dt_jax evaluate plays other episodes)"
            )
            return None, config, record["dataset"]
    with distributed.all_or_none():
        check_packages(config)
        if last is None:
            trainer = _new(config, workdir)
        else:
            trainer = _going_on(config, workdir, record)
    with distributed.all_or_none():
        trainer.begin(last)
    identity = trainer.dataset
    distributed.check_same(
        data=identity["sha256"],
        parameters=_digest(trainer.params),
        **{f"config.{key}": trainer.config[key] for key in config},
    )
    return trainer, trainer.config, identity


def _new(config: ConfigDict, workdir: Path) -> Trainer:
    """Return a run that is to be begun."""
    _say_that_it_begins_anew(workdir, config)
    spec = envs.of_config(config)
    config, source = read_source(config)
    dataset = load_data(config, spec)
    return new_trainer(config, workdir, dataset, spec, source)


def _going_on(config: ConfigDict, workdir: Path, record: dict[str, Any]) -> Trainer:
    """Return a run that is to begin from the checkpoint with that record."""
    spec = envs.of_config(config)
    dataset = load_data(config, spec)
    check_same_data(workdir, record["dataset"], dataset.identity())
    _say_how_it_goes_on(config, record["config"], record["step"])
    scaling = _scaling(config, dataset, spec)
    for key in ("state_mean", "state_std"):  # another run's after a warm start
        scaling[key] = np.asarray(record[key], np.float32)
    return Trainer(config, workdir, dataset, spec, scaling)


def _digest(params: Params) -> str:
    """Return a hash of parameters."""
    digest = hashlib.sha256()
    for array in jax.tree.leaves(jax.device_get(params)):
        digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()


def _say_that_it_begins_anew(workdir: Path, config: ConfigDict) -> None:
    """Tell of a run that was killed before its first checkpoint.

    Raises:
      UserError: it had got so far that there were some, which are gone.
    """
    if not (rows := read_metrics(workdir / "metrics.jsonl")):
        return
    # A save that begins waits for the one before.
    if rows[-1]["step"] > 2 * config.checkpoint_every:
        raise UserError(
            f"{workdir} has metrics up to step {rows[-1]['step']}, and its checkpoints "
            "are gone: restore them, or choose another --workdir"
        )
    print(f"{workdir}: the run there has no checkpoint and begins anew")


def read_source(config: ConfigDict) -> tuple[ConfigDict, WarmStart | None]:
    """Return what `init_from` names, and the configuration as that fills it in."""
    config = ConfigDict(config.to_dict()).lock()  # the caller's stays as it is
    if config.init_from is None:
        return config, None
    return config, warm_start.load(config.init_from, config)


def load_data(config: ConfigDict, spec: DatasetSpec | None) -> Dataset:
    """Return the data of a run, and say how long its trajectories are."""
    dataset = load_dataset(
        spec,
        config.data_path,
        episode_len=config.episode_len,
        split=config.split,
        memory_limit_gb=config.memory_limit_gb,
    )
    print(f"{dataset.source}: {lengths_summary(dataset.trajectories)}")
    return dataset


def new_trainer(
    config: ConfigDict,
    workdir: Path,
    dataset: Dataset,
    spec: DatasetSpec | None,
    source: WarmStart | None,
) -> Trainer:
    """Return a run to begin; what its configuration leaves open is filled and told.

    Raises:
      UserError: data, configuration and source don't fit each other.
    """
    config, choices = data_defaults.fill_in(config, dataset.trajectories, spec)
    for line in choices:
        print(line)
    _check_fit(config, dataset, spec, source)
    scaling, params = _scaling(config, dataset, spec), None
    if source is not None:
        scaling = source.scaling_for(dataset.source, scaling)
        params = source.params
    return Trainer(config, workdir, dataset, spec, scaling, params)


def _check_fit(
    config: ConfigDict,
    dataset: Dataset,
    spec: DatasetSpec | None,
    source: WarmStart | None,
) -> None:
    """Refuse trajectories that are too long, and tell of actions that are too large."""
    trajectories = dataset.trajectories
    longest = int(trajectories.lengths.max())
    if source and longest > config.episode_len + 1:
        raise UserError(
            f"{dataset.source} has a trajectory of {longest} steps, and "
            f"{source.source} was trained for {config.episode_len}: cut it, or leave "
            "init_from out"
        )
    trajectories.check_lengths(config.episode_len)
    if warning := action_range_warning(trajectories, spec, config.max_action):
        warnings.warn(f"{dataset.source}: {warning}", stacklevel=1)


def _scaling(
    config: ConfigDict, dataset: Dataset, spec: DatasetSpec | None
) -> dict[str, np.ndarray]:
    """Return what brings the data into the network's units, see `Trainer`."""
    trajectories = dataset.trajectories
    action_size = trajectories.actions.shape[1]
    center, scale = action_units(spec, action_size, config.max_action)
    arrays = trajectories.state_mean, trajectories.state_std, center, scale
    return dict(zip(SCALING, arrays, strict=True))


def _say_how_it_goes_on(config: ConfigDict, before: dict[str, Any], step: int) -> None:
    print(f"going on from the checkpoint at step {step}")
    changed = config.update_steps != before["update_steps"]
    if changed and config.lr_schedule == "warmup_cosine":
        print(
            f"update_steps {before['update_steps']} -> {config.update_steps}: the "
            "cosine schedule is recomputed for the new length"
        )


def _summarise(workdir: Path, config: ConfigDict, dataset: dict[str, Any]) -> None:
    run = runs.recorded(workdir, config, dataset)
    scored_as = config.env_name if run.newest else None
    label = summary.data_label(config, dataset, scored_as)
    summary.draw(run, label)
    summary.show(run, label)
