"""Stages: the runs that a run begins with, and what is made of their results.

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


def stage_results(
    dataset: Dataset, config: ConfigDict, workdir: Path
) -> list[dict[str, Trained]]:
    """Return the results of the stages of a run for each seed, by their names.

    They are complete. Where `labels_from` names a run of the first stage's agent, that
    run is its result; where it names a run with labels, there are no results.

    Args:
      dataset: the run's data.
      config: of the run.
      workdir: its folder.

    Raises:
      UserError: the run of `labels_from` is of no use.
    """
    agent, count = agent_class(config.agent), config.num_seeds
    stages = {
        name: load_agent(workdir / name, "last") for name in stage_configs(config)
    }
    source = config.get("labels_from")
    if source and not _has_labels(config):
        name, changes = next(iter(agent.stages(config).items()))
        try:
            stages = {name: load_agent(user_path(source), "last")}
        except UserError as error:
            raise UserError(f"config.labels_from={source}: {error}") from None
        theirs = stages[name].record["config"]
        if theirs["agent"] != changes["agent"] or theirs["num_seeds"] not in (1, count):
            seeds = "one seed" if count == 1 else f"one seed or {count}"
            labels = "a run with labels, or " if _makes_labels(config) else ""
            raise UserError(
                f"config.labels_from={source}: expected {labels}a run of the agent "
                f"{changes['agent']} with {seeds}, such as RUN/{name}"
            )
        seen, here = stages[name].agent.observation_size, dataset.trajectories.sizes[0]
        if seen != here:
            raise UserError(
                f"config.labels_from={source}: it was trained on observations of "
                f"{seen} numbers, but {dataset.source} has {here}"
            )
    return [
        {name: _of_seed(trained, i) for name, trained in stages.items()}
        for i in range(count)
    ]


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
      UserError: the run of `labels_from` is of no use.
    """
    if _has_labels(config):
        source = user_path(config.labels_from) / "labels"
        labels = _labels_of(source, dataset, config.agent, len(stages))
    else:
        agent = agent_class(config.agent)
        each = [agent.make_labels(config, x, dataset.trajectories) for x in stages]
        labels = tuple(labels for labels in each if labels is not None)
    labelled = _labelled(dataset, labels)
    if labels and distributed.is_main_process():
        _write(labelled, config.agent, workdir / "labels")
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
        labelled = _labelled(dataset, _read(folder))
    else:
        stages = stage_results(dataset, config, workdir)
        labelled = new_labels(dataset, config, workdir, stages)
    if hashes != [each.sha256() for each in labelled.labels]:
        raise UserError(
            f"{folder}: the labels are not those that the run was trained on: restore "
            "the folder, or choose another --workdir"
        )
    return labelled


def _labelled(dataset: Dataset, labels: tuple[Labels, ...]) -> Dataset:
    """Return the dataset with labels, which are the same on all processes."""
    distributed.check_equal(labels=[each.sha256() for each in labels])
    return replace(dataset, labels=labels)


def _makes_labels(config: ConfigDict) -> bool:
    """Return whether the agent of a run is trained on labels."""
    inherited = vars(Agent)["make_labels"].__func__
    return agent_class(config.agent).make_labels.__func__ is not inherited


def _has_labels(config: ConfigDict) -> bool:
    """Return whether a run uses the labels of the run that `labels_from` names."""
    source = config.get("labels_from")
    if not source or not _makes_labels(config):
        return False
    return (user_path(source) / "labels" / "labels.npz").is_file()


def _of_seed(trained: TrainedAgent, index: int) -> Trained:
    """Return a stage's result for the seed with this index."""
    config = trained.record["config"]
    one_for_all = config["num_seeds"] == 1
    seed = config["train_seed"] + (0 if one_for_all else index)
    return Trained(trained.agent, trained.seed_params(seed))


def _labels_of(
    folder: Path, dataset: Dataset, agent: str, count: int
) -> tuple[Labels, ...]:
    """Return the labels of another run of the same agent on the same data."""
    labels = _read(folder)
    summary = json.loads(read_regular(folder / "summary.json"))
    if summary["agent"] != agent:
        raise UserError(
            f"{folder} has the labels of the agent {summary['agent']}, not of {agent}: "
            "leave labels_from out"
        )
    if summary["data_sha256"] != dataset.sha256:
        raise UserError(
            f"{folder} has the labels of other data than {dataset.source}: leave "
            "labels_from out"
        )
    if len(labels) not in (1, count):
        raise UserError(
            f"{folder} has labels of {len(labels)} seeds, but num_seeds is {count}: "
            "set it to theirs"
        )
    return labels * (count // len(labels))


def _read(folder: Path) -> tuple[Labels, ...]:
    path = folder / "labels.npz"
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except Exception as error:  # whatever a damaged archive may raise
        raise UserError(f"{path} is damaged: {error}") from error
    offsets = arrays.get("offsets", [None] * len(arrays["values"]))
    return tuple(map(Labels, arrays["values"], offsets))


def _write(dataset: Dataset, agent: str, folder: Path) -> None:
    """Write labels.npz, summary.json and histogram.png; print one line."""
    returns, starts = dataset.trajectories.returns_to_go, dataset.trajectories.starts
    summaries = [describe_labels(each, returns, starts) for each in dataset.labels]
    first = summaries[0]
    print(
        f"labels: {first['share_relabelled']:.1%} of {dataset.source} relabelled, "
        f"label - return median {first['difference_median']:.3g}, 90th percentile "
        f"{first['difference_90th_percentile']:.3g}; {first['share_below_return']:.1%} "
        f"below the return; largest {first['largest']:.4g} ({folder / 'histogram.png'})"
    )
    columns = zip(Labels._fields, zip(*dataset.labels, strict=True), strict=True)
    arrays: dict[str, Any] = {
        name: np.stack(arrays) for name, arrays in columns if arrays[0] is not None
    }
    with atomic_write(folder / "labels.npz") as temporary:
        np.savez(temporary, **arrays)
    summary = {"agent": agent, "data_sha256": dataset.sha256, "seeds": summaries}
    write_text(folder / "summary.json", to_json(summary, indent=1) + "\n")
    draw_label_histogram(first["histogram"], folder / "histogram.png")
