"""Training: from a configuration to a run's folder, new or resumed."""

import hashlib
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from dt_jax import envs
from dt_jax.agents import agent_class
from dt_jax.analysis import summary
from dt_jax.config import from_data
from dt_jax.config.load import validate, workdir_for
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.registry import EnvSpec, is_d4rl
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets import Dataset, read_dataset
from dt_jax.datasets.describe import (
    action_range_warning,
    constant_numbers,
    index_ranges,
    lengths_summary,
    unit_warnings,
)
from dt_jax.envs.spaces import action_range, action_units, check_bounds
from dt_jax.evaluation.policy import Policy
from dt_jax.runs.checkpoint import Checkpoint, is_unsaved
from dt_jax.runs.folder import RunFolder
from dt_jax.runs.metrics import read_metrics
from dt_jax.training import warm_start
from dt_jax.training.loggers import check_installed
from dt_jax.training.resume import (
    delete_leftovers,
    is_complete,
    last_checkpoint,
    resumed_config,
)
from dt_jax.training.stages import (
    check_stages,
    needs_stages,
    new_labels,
    resumed_labels,
    stage_configs,
    stage_results,
)
from dt_jax.training.trainer import Callback, Trainer
from dt_jax.training.warm_start import WarmStart
from dt_jax.types import Params
from dt_jax.utils import distributed
from dt_jax.utils.backend import check_backend
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import lock_holder, locked, remove_leftovers
from dt_jax.utils.sharding import make_sharding
from dt_jax.utils.signals import Stopped, set_stop_message


@dataclass(frozen=True)
class Run:
    """A run as `train` leaves it.

    Attributes:
      workdir: its folder.
      config: with everything that was left to the data.
      step: updates completed.
      stopped: whether a callback has stopped it before its end; the same call resumes
        it.
      signal: one that was received too late to stop it.
    """

    workdir: Path
    config: ConfigDict
    step: int
    stopped: bool
    signal: Signals | None = None

    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl."""
        return read_metrics(self.workdir / "metrics.jsonl")

    def policy(self, checkpoint: str | int = "last", seed: int | None = None) -> Policy:
        """Return the trained policy; see `Policy.load`."""
        return Policy.load(self.workdir, checkpoint, seed)


def train(
    config: ConfigDict,
    workdir: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train, evaluate and save checkpoints until `update_steps` updates are done.

    A run that is in `workdir` already is resumed from its last checkpoint.

    Args:
      config: as `load_config` or `default_config` return it.
      workdir: the run's folder, created if missing; None: as on the command line.
      callbacks: each is called with the step, its row of metrics (aggregated over
        seeds, each seed's own under seed_<seed>/) and a function that stops the run:
        it then saves a checkpoint and can be resumed. Only on the main process, and
        only for the run itself, not for its stages.

    Raises:
      UserError: the configuration is not valid; the data, the environment or the run in
        `workdir` does not fit it; a metric is not finite; or another process is using
        the folder.
      KeyboardInterrupt: a signal was received; everything is saved.
    """
    return _train(config, workdir, callbacks)


def _train(
    config: ConfigDict,
    workdir: str | Path | None,
    callbacks: Sequence[Callback] = (),
    dataset: Dataset | None = None,
    after: str = "",
) -> Run:
    """Train as `train` does.

    Args:
      config: see `train`.
      workdir: see `train`.
      callbacks: see `train`.
      dataset: of a stage, if it is loaded.
      after: of a stage, the end of the message about a signal after its last update.
    """
    config = ConfigDict(config.to_dict())
    validate(config)
    config.lock()
    check_backend(config.device)
    folder = workdir_for(config, workdir)
    with ExitStack() as stack:
        with distributed.all_succeed():
            if distributed.is_main_process():
                stack.enter_context(locked(folder))
                for each in (folder, folder / "eval", folder / "checkpoints"):
                    remove_leftovers(each)
        distributed.check_equal(
            workdir=lock_holder(folder),  # the main process: do all see it?
            **{f"config.{key}": config[key] for key in config},
        )
        with distributed.all_succeed():
            last = last_checkpoint(folder, config)
            if last is None:
                _check_new(config, folder)
                if stage_configs(config):
                    dataset = _load_for_stages(config)
        distributed.check_equal(checkpoint=last and last.step)
        if last is not None:
            config = resumed_config(config, last.record["config"])
            if is_complete(last, config):
                beyond = last.step > config.update_steps
                limit = f", beyond update_steps={config.update_steps}" * beyond
                print(
                    f"{folder}: this run is complete, with {last.step} updates{limit} "
                    "(python -m dt_jax evaluate plays other episodes)"
                )
                delete_leftovers(folder, config)
                if distributed.is_main_process():
                    _summarise(folder, config, last.record)
                return Run(folder, config, last.step, stopped=False)
        if needs_stages(folder, last):
            for name, stage in stage_configs(config).items():
                _train_stage(name, stage, folder, dataset)
        trainer = _start(config, folder, last, callbacks, stack, dataset)
        if last is None and stage_configs(config):
            print(f"stage policy: {config.agent}, {config.update_steps} updates")
        set_stop_message("")
        finished = trainer.run()
        set_stop_message(after)
        if distributed.is_main_process() and finished:
            _summarise(folder, trainer.config, trainer.record)
        return Run(folder, trainer.config, trainer.step, not finished, trainer.signal)


def _train_stage(
    name: str, config: ConfigDict, workdir: Path, dataset: Dataset | None
) -> None:
    """Train what a run begins with, unless it is complete."""
    folder, limit = workdir / name, config.update_steps
    after = f" after stage {name}; saved: run the same command to resume"
    try:
        with distributed.all_succeed():
            last = last_checkpoint(folder, config)
            if last and last.step > limit:
                raise UserError(
                    f"{folder} has {last.step} updates, more than the {limit} that "
                    "this run asks for: set them back, or delete that folder"
                )
        if last and is_complete(last, resumed_config(config, last.record["config"])):
            set_stop_message(after)
            return
        print(f"stage {name}: {config.agent}, {limit} updates")
        signal = _train(config, folder, dataset=dataset, after=after).signal
    except UserError as error:
        raise UserError(f"stage {name}: {error}") from error
    except Stopped as stopped:
        raise Stopped(stopped.signal, f" in stage {name}{stopped.after}") from None
    if signal is not None:
        raise Stopped(signal, after)


def _start(
    config: ConfigDict,
    workdir: Path,
    last: Checkpoint | None,
    callbacks: Sequence[Callback],
    stack: ExitStack,
    dataset: Dataset | None,
) -> Trainer:
    """Return the trainer of a new or a resumed run, at its first update.

    `stack` closes it. `dataset` is the run's, if it is loaded.

    Processes synchronise between steps, never inside one: a failed process would miss
    a collective.
    """
    stages = None  # whose results a new run starts with
    with distributed.all_succeed():
        check_installed(config.loggers)
        if last is None:
            spec = envs.spec_from_config(config)
            config, source = read_source(config)
            dataset = dataset or load_new_data(config, spec)
            stages = stage_results(dataset, config, workdir)
            dataset = new_labels(dataset, config, workdir, stages)
            trainer = new_trainer(config, workdir, dataset, spec, source, callbacks)
        else:
            trainer = _resumed_trainer(config, workdir, last, callbacks, dataset)
        stack.callback(trainer.close)
    with distributed.all_succeed():
        trainer.start(last, stages)
    distributed.check_equal(
        data=trainer.record["dataset"]["sha256"],
        labels=trainer.record["dataset"].get("labels"),
        parameters=_digest(trainer.params),
        **{f"config.{key}": trainer.config[key] for key in config},
    )
    return trainer


def _resumed_trainer(
    config: ConfigDict,
    workdir: Path,
    last: Checkpoint,
    callbacks: Sequence[Callback],
    dataset: Dataset | None,
) -> Trainer:
    """Return the trainer of a run that resumes from a checkpoint.

    Raises:
      UserError: the data, or the environment's bounds on actions, have changed.
    """
    spec = envs.spec_from_config(config)
    dataset = dataset or load_data(config, spec)
    before, now = last.record["dataset"], dataset.identity()
    if before["sha256"] != now["sha256"]:
        raise UserError(
            f"{workdir} was trained on {before['source']}, but the content of "
            f"{now['source']} differs (sha256 {before['sha256'][:12]}... -> "
            f"{now['sha256'][:12]}...): restore the file, or choose another --workdir"
        )
    dataset = resumed_labels(dataset, config, workdir, before)
    print(f"resuming from the checkpoint at step {last.step}")
    updates = last.record["config"]["update_steps"]
    decays = "cosine" in config.get("lr_schedule", "cosine")  # critics have no key
    if config.update_steps != updates and decays:
        print(
            f"update_steps {updates} -> {config.update_steps}: learning rates that "
            "decay until the last update are recomputed for the new length"
        )
    normalizer, remedy = last.normalizer, "choose another --workdir"
    check_bounds(workdir, last.record.get("action_bounds"), spec, remedy)
    return Trainer(config, workdir, dataset, spec, normalizer, callbacks=callbacks)


def _check_new(config: ConfigDict, workdir: Path) -> None:
    """Raise what a new run can be refused for before its stages are trained.

    Raises:
      UserError: a key's value cannot be used, or a run's checkpoints are gone.
    """
    make_sharding(config.num_devices, config.num_seeds, config.batch_size)
    _check_fresh(workdir)


def _load_for_stages(config: ConfigDict) -> Dataset:
    """Return the data of a new run and its stages, after checking all that needs it.

    Raises:
      UserError: the run or a stage would be refused.
    """
    config, _ = read_source(config)
    dataset = load_new_data(config, envs.spec_from_config(config))
    check_stages(config, dataset)
    return dataset


def _check_fresh(workdir: Path) -> None:
    """Report a run that was killed before its first checkpoint.

    Raises:
      UserError: it had checkpoints, which are gone.
    """
    left = "metrics.jsonl", "config.json", "eval/*.npz"  # created after checkpoints/
    if not any(any(workdir.glob(name)) for name in left):
        return
    if not is_unsaved(workdir / "checkpoints"):
        raise UserError(
            f"{workdir} holds a run whose checkpoints are gone: restore them, delete "
            "the folder to start over, or choose another --workdir"
        )
    print(f"{workdir}: the run there has no checkpoint and starts over")


def _digest(params: Params) -> str:
    """Return a hash of parameters."""
    digest = hashlib.sha256()
    for array in jax.tree.leaves(jax.device_get(params)):
        digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()


def _summarise(workdir: Path, config: ConfigDict, record: dict[str, Any]) -> None:
    """Print the final table and write the final picture."""
    run = RunFolder(workdir, config, record["dataset"], record["versions"])
    summary.draw(run)
    summary.show(run)


# What a dry run needs as well.


def read_source(config: ConfigDict) -> tuple[ConfigDict, WarmStart | None]:
    """Return what `init_from` names, and the configuration as that fills it in."""
    config = ConfigDict(config.to_dict()).lock()  # the caller's is not changed
    if config.init_from is None:
        return config, None
    return config, warm_start.load(config.init_from, config)


def load_data(config: ConfigDict, spec: EnvSpec | None) -> Dataset:
    """Return the data of a run; print its lengths, and which numbers are constant."""
    dataset = read_dataset(
        spec,
        config.data_path,
        episode_len=config.episode_len,
        split=config.split,
        memory_limit_gb=config.memory_limit_gb,
    )
    print(f"{dataset.source}: {lengths_summary(dataset.trajectories)}")
    if line := constant_numbers(dataset.trajectories, spec):
        print(f"{dataset.source}: {line}")
    return dataset


def load_new_data(config: ConfigDict, spec: EnvSpec | None) -> Dataset:
    """Return the data of a new run; warn where conditioning on returns would fail."""
    dataset = load_data(config, spec)
    if agent_class(config.agent).conditioned:
        trajectories = dataset.trajectories
        filled, _ = from_data.fill_in(config, trajectories, spec)
        for line in from_data.return_warnings(filled, trajectories, spec):
            warnings.warn(f"{dataset.source}: {line}", stacklevel=1)
    return dataset


def new_trainer(
    config: ConfigDict,
    workdir: Path,
    dataset: Dataset,
    spec: EnvSpec | None,
    source: WarmStart | None,
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """Return the trainer of a new run; what is left to the data is filled and printed.

    Raises:
      UserError: data, configuration and source do not fit each other.
    """
    trajectories = dataset.trajectories
    agent_class(config.agent).check_data(trajectories)
    config, choices = from_data.fill_in(config, trajectories, spec, dataset.labels)
    for line in choices:
        print(line)
    longest = int(trajectories.lengths.max())
    if source and longest > config.episode_len + 1:
        raise UserError(
            f"{dataset.source} has a trajectory of {longest} steps, but "
            f"{source.source} was trained for {config.episode_len}: cut it, or leave "
            "init_from out"
        )
    trajectories.check_lengths(config.episode_len)
    if source is None:
        normalizer, params = make_normalizer(config, trajectories, spec), None
    else:
        normalizer = source.normalizer_for(config, trajectories, spec)
        params = source.params
    lines = [action_range_warning(trajectories, spec)]
    if not is_d4rl(spec):  # whose units nobody can change
        lines += unit_warnings(trajectories, normalizer, config.max_action)
    if dataset.labels and "critic_update_steps" in config:
        labels = dataset.labels
        lines.append(from_data.label_warning(config, trajectories, spec, labels))
    for line in filter(None, lines):
        warnings.warn(f"{dataset.source}: {line}", stacklevel=1)
    return Trainer(config, workdir, dataset, spec, normalizer, params, callbacks)


def make_normalizer(
    config: ConfigDict, trajectories: Trajectories, spec: EnvSpec | None
) -> Normalizer:
    """Return the normaliser of a new run; print where bounds are not used."""
    std, scale = trajectories.state_std, config.get("reward_scale", 1.0)
    if not is_d4rl(spec):
        std = np.where(trajectories.nearly_constant, np.maximum(std, 1), std)
    states = trajectories.state_mean, std
    if trajectories.discrete:
        size = trajectories.sizes[1]
        units = np.zeros(size, np.float32), np.ones(size, np.float32)
        return Normalizer(*states, *units, scale, discrete=True)
    low, high, narrow = action_range(spec, trajectories.actions)
    if spec is not None and narrow.any():
        print(
            f"{trajectories.source}: action numbers {index_ranges(*narrow.nonzero())} "
            f"use less than a tenth of their bounds in {spec.name}; the network's "
            "range is that of the data instead"
        )
    reach = (high - low) / 2 / config.max_action
    if (small := (reach > 0) & (reach < np.finfo(np.float32).tiny)).any():
        raise UserError(
            f"{trajectories.source}: action numbers {index_ranges(*small.nonzero())} "
            "vary less than float32 can represent; use larger units for them"
        )
    return Normalizer(*states, *action_units(low, high, config.max_action), scale)
