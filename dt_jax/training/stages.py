"""Stages: the runs that are trained before a run, and the labels made from them.

runs/qdt/critic/   a run of its own
runs/qdt/labels/   labels.npz, summary.json and histogram.png
runs/qdt/          the run that is trained on these labels
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
    if config.get("labels_from"):
        return {}
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
    seeds = "one seed" if count == 1 else f"one seed or {count}"
    expected = f"{labels}a run of the agent {changes['agent']} with {seeds}"
    try:
        trained = load_agent(user_path(source), "last")
        theirs = trained.record["config"]
        if theirs["agent"] != changes["agent"] or theirs["num_seeds"] not in (1, count):
            raise UserError(f"expected {expected}, such as RUN/{name}")
        if trained.step < theirs["update_steps"]:
            steps = f"{trained.step} of {theirs['update_steps']} updates"
            raise UserError(f"this run has {steps}: resume it first")
        if _sha256(trained) != dataset.sha256:
            raise UserError(f"it was trained on other data than {dataset.source}")
    except UserError as error:
        raise UserError(f"config.labels_from={source}: {error}") from None
    return {name: trained}


def check_labels_from(dataset: Dataset, config: ConfigDict) -> None:
    """Raise a UserError if the run that `labels_from` names cannot be used."""
    if _has_labels(config):
        _labels_of(dataset, config)
    elif config.get("labels_from"):
        _stage_of(dataset, config)


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
        labels = _labels_of(dataset, config)
    else:
        agent = agent_class(config.agent)
        each = [agent.make_labels(config, x, dataset.trajectories) for x in stages]
        labels = tuple(labels for labels in each if labels is not None)
    labelled = replace(dataset, labels=labels)
    if labels and distributed.is_main_process():
        _write(labelled, config, workdir / "labels")
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


def _made_by(config: ConfigDict) -> dict[str, Any]:
    """Return the keys that say what a run's labels are."""
    keys = "agent", "label_mode", "labels", "label_rounding"
    return {key: config[key] for key in keys if key in config}


def _of_seed(trained: TrainedAgent, index: int) -> Trained:
    """Return a stage's result for the seed with this index."""
    config = trained.record["config"]
    one_for_all = config["num_seeds"] == 1
    seed = config["train_seed"] + (0 if one_for_all else index)
    return Trained(trained.agent, trained.seed_params(seed))


def _labels_of(dataset: Dataset, config: ConfigDict) -> tuple[Labels, ...]:
    """Return the labels of the run that `labels_from` names."""
    folder, count = user_path(config.labels_from) / "labels", config.num_seeds
    try:
        labels = _read(folder)
        summary = _read_summary(folder)
        for key, ours in _made_by(config).items():
            if summary.get(key) != ours:
                raise UserError(f"its labels were made with {key}={summary.get(key)}")
        if summary["data_sha256"] != dataset.sha256:
            raise UserError(f"it has the labels of other data than {dataset.source}")
        if len(labels) not in (1, count):
            raise UserError(f"it has labels of {len(labels)} seeds, not of {count}")
    except UserError as error:
        raise UserError(f"config.labels_from={config.labels_from}: {error}") from None
    return labels * (count // len(labels))


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
    """Return what labels are of: `_made_by`, and the hash of the data."""
    path = folder / "summary.json"
    try:
        summary = json.loads(read_regular(path))
        return summary["made_by"] | {"data_sha256": summary["data_sha256"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is missing or damaged ({error})") from error


def _write(dataset: Dataset, config: ConfigDict, folder: Path) -> None:
    """Write labels.npz, summary.json and histogram.png; print one line."""
    returns, starts = dataset.trajectories.returns_to_go, dataset.trajectories.starts
    summaries = [describe_labels(each, returns, starts) for each in dataset.labels]
    first, origin = summaries[0], config.get("labels_from")
    print(
        f"labels{f' from {origin}' if origin else ''}: {first['share_relabelled']:.1%} "
        f"of {dataset.source} relabelled, {first['share_below_return']:.1%} to less; "
        f"label minus return: median {first['difference_median']:.3g}, 90th percentile "
        f"{first['difference_90th_percentile']:.3g}; largest label of a first step "
        f"{first['largest']:.4g}, best return {returns[starts].max():.4g} "
        f"({folder / 'histogram.png'})"
    )
    columns = zip(Labels._fields, zip(*dataset.labels, strict=True), strict=True)
    arrays: dict[str, Any] = {
        name: np.stack(arrays) for name, arrays in columns if arrays[0] is not None
    }
    with atomic_write(folder / "labels.npz") as temporary:
        np.savez(temporary, **arrays)
    summary = {
        "made_by": _made_by(config),
        "labels_from": origin,
        "data_sha256": dataset.sha256,
        "seeds": summaries,
    }
    write_text(folder / "summary.json", to_json(summary, indent=1) + "\n")
    draw_label_histogram(first["histogram"], folder / "histogram.png")
