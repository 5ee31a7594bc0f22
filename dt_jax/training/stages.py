"""Stages: the runs that are trained before a run, and the labels made from them.

runs/qdt/critic/   a run of its own
runs/qdt/labels/   labels.npz, summary.json and histogram.png
runs/qdt/          the run that is trained on these labels
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dt_jax.agents import agent_class
from dt_jax.agents.base import Agent, Trained
from dt_jax.analysis.plots import draw_label_histogram
from dt_jax.config.load import default_config
from dt_jax.data.labels import Labels, describe_labels
from dt_jax.datasets import Dataset
from dt_jax.evaluation.policy import TrainedAgent, load_agent
from dt_jax.runs.checkpoint import Checkpoint
from dt_jax.runs.folder import read_checkpoint
from dt_jax.utils import distributed
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import (
    atomic_write,
    read_regular,
    to_json,
    user_path,
    write_text,
)


def stage_configs(config: ConfigDict) -> dict[str, ConfigDict]:
    """Return the configurations of the stages of a run, by their subfolder.

    Each has the values of the run's keys that its agent has too. It is not evaluated in
    the environment, and on held-out trajectories at its end. With labels of another run
    there are no stages.
    """
    return {} if config.get("labels_from") else _stage_configs(config)


def _stage_configs(config: ConfigDict) -> dict[str, ConfigDict]:
    """Return `stage_configs` as without `labels_from`."""
    stages = {}
    for name, changes in agent_class(config.agent).stages(config).items():
        stage = default_config(changes["agent"])
        shared = {key: config[key] for key in stage if key in config}
        shared |= {"name": f"{config.name}-{name}", "eval_episodes": 0}
        shared["init_from"] = None  # it names a run of this agent, not of the stage's
        if config.env_name is not None and config.eval_episodes:
            # As for the run itself, which decides it by whether it is evaluated.
            shared["holdout_fraction"] = config.holdout_fraction or 0.0
        with stage.ignore_type():
            stage.update({**shared, **changes})
        stage.eval_every = stage.update_steps
        stages[name] = stage.lock()
    return stages


def needs_stages(workdir: Path, last: Checkpoint | None) -> bool:
    """Return whether a run needs the results of its stages.

    A resumed run needs them only for labels that have been deleted.

    Args:
      workdir: the run's folder.
      last: the checkpoint that it resumes from, if any.
    """
    if last is None:
        return True
    has_labels = bool(last.record["dataset"].get("labels"))
    return has_labels and not (workdir / "labels" / "labels.npz").exists()


def stage_results(
    dataset: Dataset, config: ConfigDict, workdir: Path
) -> list[dict[str, Trained]]:
    """Return the results of the stages of a run for each seed, by their names.

    The stages are complete. Where `labels_from` names a run of the first stage's
    agent, that is its result; where it names a run with labels, there are no results.

    Args:
      dataset: the run's data.
      config: of the run.
      workdir: its folder.

    Raises:
      UserError: a stage was trained on other data, or the run of `labels_from` is of
        no use.
    """
    stages = {}
    for name in stage_configs(config):
        stages[name] = load_agent(workdir / name, "last")
        if _sha256(stages[name]) != dataset.sha256:
            raise UserError(
                f"stage {name}: {workdir / name} was trained on other data than "
                f"{dataset.source} has now: restore the data, or delete that folder"
            )
    if config.get("labels_from") and not _has_labels(config):
        stages = _stage_of(dataset, config)
    return [
        {name: _of_seed(trained, i) for name, trained in stages.items()}
        for i in range(config.num_seeds)
    ]


def _stage_of(dataset: Dataset, config: ConfigDict) -> dict[str, TrainedAgent]:
    """Return the run that `labels_from` names, as the result of the first stage."""
    source, count = config.labels_from, config.num_seeds
    name, changes = next(iter(agent_class(config.agent).stages(config).items()))
    labels = "a run with labels, or " if _makes_labels(config) else ""
    expected = f"{labels}a run of the agent {changes['agent']}"
    with _named(source):
        if not user_path(source).exists():
            raise UserError("there is no such folder: choose the folder of a run")
        if (user_path(source) / "labels.npz").exists():
            raise UserError(
                f"this is only its folder of labels: give {Path(source).parent}"
            )
        trained = load_agent(user_path(source), "last")
        theirs = trained.record["config"]
        if theirs["agent"] != changes["agent"]:
            raise UserError(f"expected {expected}, such as RUN/{name}")
        _check_seeds(theirs["num_seeds"], count)
        if trained.step < theirs["update_steps"]:
            steps = f"{trained.step} of {theirs['update_steps']} updates"
            raise UserError(f"this run has {steps}: resume it first")
        data = trained.record["dataset"]
        _check_data(data["source"], data["sha256"], dataset)
    return {name: trained}


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Have errors begin with the key that names `source`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"config.labels_from={source}: {error}") from None


def _check_seeds(theirs: int, ours: int) -> None:
    if theirs not in (1, ours):
        raise UserError(
            f"it has {theirs} seeds, not {ours}: set num_seeds={theirs}, or choose a "
            "run with one seed"
        )


def _check_data(source: str, digest: str, dataset: Dataset) -> None:
    if digest != dataset.sha256:
        raise UserError(
            f"it is a run on other data, {source} (sha256 {digest[:12]}...), not "
            f"{dataset.source} ({dataset.sha256[:12]}...): use that data, or choose "
            "another run"
        )


def check_labels_from(
    dataset: Dataset, config: ConfigDict
) -> list[dict[str, Trained]] | None:
    """Return the results of the first seed's stages, if `labels_from` names a stage.

    Raises:
      UserError: the run that it names cannot be used.
    """
    if _has_labels(config):
        _labels_of(dataset, config)
    elif config.get("labels_from"):
        stages = _stage_of(dataset, config)
        return [{name: _of_seed(trained, 0) for name, trained in stages.items()}]
    return None


def check_stages(config: ConfigDict, dataset: Dataset) -> None:
    """Raise a UserError if the agent of a stage cannot learn from the data."""
    for name, stage in stage_configs(config).items():
        try:
            agent_class(stage.agent).check_data(dataset.trajectories)
        except UserError as error:
            raise UserError(f"stage {name}: {error}") from None


def new_labels(
    dataset: Dataset,
    config: ConfigDict,
    workdir: Path,
    stages: Sequence[Mapping[str, Trained]],
) -> Dataset:
    """Return the dataset with the labels of a run, made of the results of its stages.

    Prints how they differ from the returns, and writes `workdir`/labels. The dataset
    itself where the agent uses the returns.

    Args:
      dataset: the run's data.
      config: of the run.
      workdir: its folder.
      stages: as `stage_results` returns them.

    Raises:
      UserError: the run of `labels_from` cannot be used.
    """
    if _has_labels(config):
        labels, made_by = _labels_of(dataset, config)
    else:
        made_by = _made_by(config, workdir)
        agent = agent_class(config.agent)
        each = [agent.make_labels(config, x, dataset.trajectories) for x in stages]
        labels = tuple(labels for labels in each if labels is not None)
    if config.get("labels_from"):
        print(_origin(config, made_by))
    labelled = replace(dataset, labels=labels)
    if labels and distributed.is_main_process():
        _write(labelled, config, workdir / "labels", made_by)
    return labelled


def resumed_labels(
    dataset: Dataset, config: ConfigDict, workdir: Path, before: Mapping[str, Any]
) -> Dataset:
    """Return the dataset with the labels that a run was trained on, if any.

    They are read from `workdir`/labels, or made again where that is missing.

    Args:
      dataset: the run's data.
      config: of the run.
      workdir: its folder.
      before: the identity of the data in the checkpoint that it resumes from.

    Raises:
      UserError: the labels have changed.
    """
    hashes, folder = before.get("labels"), workdir / "labels"
    if not hashes:
        return dataset
    if (folder / "labels.npz").exists():
        try:
            labelled = replace(dataset, labels=_read(folder))
        except UserError as error:
            raise UserError(f"{error}: delete {folder} to compute them again") from None
    else:
        stages = stage_results(dataset, config, workdir)
        labelled = new_labels(dataset, config, workdir, stages)
    if hashes != [each.sha256() for each in labelled.labels]:
        raise UserError(
            f"{folder}: the labels are not those that the run was trained on: restore "
            "the folder, or choose another --workdir"
        )
    return labelled


def _makes_labels(config: ConfigDict) -> bool:
    """Return whether the agent of a run is trained on labels."""
    own = agent_class(config.agent).make_labels
    return own.__func__ is not Agent.make_labels.__func__  # type: ignore[attr-defined]


def _has_labels(config: ConfigDict) -> bool:
    """Return whether a run uses the labels of the run that `labels_from` names."""
    source = config.get("labels_from")
    if not source or not _makes_labels(config):
        return False
    return (user_path(source) / "labels" / "labels.npz").is_file()


def _sha256(trained: TrainedAgent) -> str:
    """Return the hash of the data that a run was trained on."""
    return trained.record["dataset"]["sha256"]


def _label_keys(config: ConfigDict) -> dict[str, Any]:
    """Return the keys of a run itself that say what its labels are."""
    keys = "agent", "label_mode", "labels", "label_rounding"
    return {key: config[key] for key in keys if key in config}


def _made_by(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Return what makes a run's labels: its own keys, and those of each stage's run."""
    made_by, source = _label_keys(config), config.get("labels_from")
    for name in agent_class(config.agent).stages(config):
        folder = user_path(source) if source else workdir / name
        stage = read_checkpoint(folder, "last").config
        names = [key.name for key in agent_class(stage.agent).KEYS]
        names += ["agent", "update_steps", "batch_size", "train_seed", "num_seeds"]
        made_by[name] = {key: stage[key] for key in sorted(names)}
    return made_by


def _origin(config: ConfigDict, made_by: Mapping[str, Any]) -> str:
    """Return a line about the stages of `labels_from`, and how this run's differ."""
    line = f"labels_from {config.labels_from}: "
    for name, ours in _stage_configs(config).items():
        theirs = made_by[name]
        line += f"{name} {theirs['agent']}, {theirs['update_steps']} updates"
        for key in (key.name for key in agent_class(theirs["agent"]).KEYS):
            if ours.get(key) not in (None, theirs[key]):
                line += f", {key} {theirs[key]} (here {ours[key]})"
        if theirs["num_seeds"] < config.num_seeds:
            line += f", its one seed for all {config.num_seeds} seeds"
        line += f"; this run's own keys of stage {name} are not used"
    return line


def _of_seed(trained: TrainedAgent, index: int) -> Trained:
    """Return a stage's result for the seed with this index."""
    config = trained.record["config"]
    one_for_all = config["num_seeds"] == 1
    seed = config["train_seed"] + (0 if one_for_all else index)
    return Trained(trained.agent, trained.seed_params(seed))


def _rows_sha256(dataset: Dataset) -> str:
    """Return a hash of which rows of the data are which trajectory."""
    data = dataset.trajectories
    return sha256(np.stack([data.starts, data.lengths]).tobytes()).hexdigest()


def _labels_of(
    dataset: Dataset, config: ConfigDict
) -> tuple[tuple[Labels, ...], dict[str, Any]]:
    """Return the labels of the run that `labels_from` names, and their `_made_by`."""
    source, count = config.labels_from, config.num_seeds
    folder = user_path(source) / "labels"
    with _named(source):
        labels = _read(folder)
        summary = _read_summary(folder)
        made_by = summary["made_by"]
        for key, ours in _label_keys(config).items():
            if made_by[key] != ours:
                remedy = _other_labels(config, key, made_by)
                raise UserError(
                    f"its labels were made with {key}={made_by[key]}: {remedy}"
                )
        _check_data(summary["data"], summary["data_sha256"], dataset)
        if summary["rows_sha256"] != _rows_sha256(dataset):
            raise UserError(
                "its trajectories begin or end at other rows: set split and "
                "episode_len to those of that run"
            )
        _check_seeds(len(labels), count)
    return labels * (count // len(labels)), made_by


def _other_labels(config: ConfigDict, key: str, made_by: Mapping[str, Any]) -> str:
    """Return what to do about a run whose labels were made with another key."""
    if key == "agent":
        return f"choose a run of the agent {config.agent}"
    source, remedy = Path(config.labels_from), f"set config.{key}={made_by[key]}"
    for name, stage in _stage_configs(config).items():
        is_there = (user_path(source / name) / "checkpoints").is_dir()
        if is_there and made_by[name]["agent"] == stage.agent:
            return f"{remedy}, or give {source / name} to make others"
    return f"{remedy}, or choose another run"


def _read(folder: Path) -> tuple[Labels, ...]:
    """Return the labels of each seed."""
    path = folder / "labels.npz"
    try:
        with np.load(path) as file:
            arrays = dict(file)
        offsets = arrays.get("offsets", [None] * len(arrays["values"]))
        return tuple(map(Labels, arrays["values"], offsets))
    except Exception as error:  # whatever a damaged archive may raise
        raise UserError(f"{path} is damaged ({error})") from error


def _read_summary(folder: Path) -> dict[str, Any]:
    """Return what labels are of: "made_by", the data and the rows."""
    path = folder / "summary.json"
    try:
        summary = json.loads(read_regular(path))
        keys = "made_by", "data", "data_sha256", "rows_sha256"
        return {key: summary[key] for key in keys}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is missing or damaged ({error})") from error


def _write(
    dataset: Dataset, config: ConfigDict, folder: Path, made_by: Mapping[str, Any]
) -> None:
    """Write labels.npz, summary.json and histogram.png; print one line."""
    returns, starts = dataset.trajectories.returns_to_go, dataset.trajectories.starts
    summaries = [describe_labels(each, returns, starts) for each in dataset.labels]

    def over_seeds(key: str, style: str) -> str:
        values = [each[key] for each in summaries]
        ends = format(min(values), style), format(max(values), style)
        return " to ".join(dict.fromkeys(ends))

    seeds = f" ({len(summaries)} seeds)" if len(summaries) > 1 else ""
    print(
        f"labels{seeds}: {over_seeds('share_relabelled', '.1%')} of {dataset.source} "
        f"relabelled, {over_seeds('share_below_return', '.1%')} to less; label minus "
        f"return: median {over_seeds('difference_median', '.3g')}, 90th percentile "
        f"{over_seeds('difference_90th_percentile', '.3g')}; largest label of a first "
        f"step {over_seeds('largest', '.4g')}, best return "
        f"{returns[starts].max():.4g} ({folder / 'histogram.png'})"
    )
    columns = zip(Labels._fields, zip(*dataset.labels, strict=True), strict=True)
    arrays: dict[str, Any] = {
        name: np.stack(arrays) for name, arrays in columns if arrays[0] is not None
    }
    with atomic_write(folder / "labels.npz") as temporary:
        np.savez(temporary, **arrays)
    summary = {
        "made_by": made_by,
        "labels_from": config.get("labels_from"),
        "data": dataset.source,
        "data_sha256": dataset.sha256,
        "rows_sha256": _rows_sha256(dataset),
        "seeds": summaries,
    }
    write_text(folder / "summary.json", to_json(summary, indent=1) + "\n")
    title = f"labels of {dataset.source}"
    title += f", seed {config.train_seed}" if len(summaries) > 1 else ""
    draw_label_histogram(summaries[0]["histogram"], title, folder / "histogram.png")
