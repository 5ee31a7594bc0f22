"""Experiments: runs grouped over their training seeds."""

import json
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dt_jax.analysis.published import PUBLISHED
from dt_jax.config.keys import keys_of
from dt_jax.data import minari
from dt_jax.runs.aggregate import Curve, join_curves
from dt_jax.runs.evaluations import Evaluation
from dt_jax.runs.folder import RunFolder, read_run
from dt_jax.runs.metrics import holdout_words
from dt_jax.utils.errors import UserError, printable

_PATHS = {"data_path", "init_from", "labels_from"}
# A resumed run may change these keys, but they affect its scores.
_EVALUATION_KEYS = {"update_steps", "target_returns", "eval_episodes", "eval_seed"}


@dataclass(frozen=True, eq=False)
class Experiment:
    """Runs with the same data and settings and different seeds.

    Attributes:
      runs: the runs, all evaluated after the same number of updates.
      settings: the keys that distinguish it from other experiments on the same data,
        as "batch_size=64, seq_len=5"; "" if there is no other one.
    """

    runs: tuple[RunFolder, ...]
    settings: str = ""

    @property
    def config(self) -> ConfigDict:
        """The configuration of the first run."""
        return self.runs[0].config

    @property
    def label(self) -> str:
        """The data it was trained on."""
        return run_label(self.runs[0])

    @property
    def name(self) -> str:
        """The label and the settings."""
        return f"{self.label}, {self.settings}" if self.settings else self.label

    @property
    def seeds(self) -> list[int]:
        """The S training seeds."""
        return [seed for run in self.runs for seed in run.seeds]

    @property
    def step(self) -> int:
        """Completed updates at the last evaluation."""
        return evaluated_step(self.runs[0])

    @property
    def evaluation(self) -> Evaluation | None:
        """The last evaluation; arrays are [S, K, E] if there are several seeds."""
        found = [run.newest[1] for run in self.runs if run.newest]
        if len(found) < 2:
            return found[0] if found else None
        names = ["returns", "lengths"]
        if found[0].normalized_scores is not None:
            names.append("normalized_scores")
        joined = {}
        for name in names:
            arrays = [getattr(evaluation, name) for evaluation in found]
            joined[name] = np.concatenate(
                [array.reshape(-1, *array.shape[-2:]) for array in arrays]
            )
        return replace(found[0], **joined)

    def curve(self, metric: str) -> Curve:
        """Return the curve of a metric, one row per seed; T is 0 if it is missing."""
        return join_curves([run.curve(metric) for run in self.runs])

    @property
    def holdout(self) -> tuple[str, Curve]:
        """What was measured on held-out trajectories, and its curve; T may be 0."""
        name = self.runs[0].holdout_metric
        return holdout_words(name), self.curve(name)

    def target_curve(self, target: float, quantity: str) -> Curve:
        """Return the mean over episodes at a target return.

        Args:
          target: the target return; NaN for an agent without target returns.
          quantity: "return" or "normalized_score".
        """
        prefix = "eval/" if np.isnan(target) else f"eval/{target}_"
        return self.curve(f"{prefix}{quantity}_mean")


def data_label(
    config: Mapping[str, Any], dataset: Mapping[str, Any], scored_as: str | None
) -> str:
    """Return the name of a run's data for tables and plots.

    A file is named without its folder. The name mentions `scored_as`, the `env_name` of
    the evaluation if there was one, where the data are not the dataset of that name and
    do not name it already.
    """
    env_name, has_file = config["env_name"], config["data_path"] is not None
    if has_file or env_name is None or env_name.startswith(minari.PREFIX):
        folder = (config["data_path"] or "").rpartition("/")[0]
        label = dataset["source"].removeprefix(f"{folder}/")
    else:
        label = env_name
    foreign = has_file or scored_as != env_name
    if scored_as is not None and foreign and not label.endswith(f"({scored_as})"):
        label += f" (scored as {scored_as})"
    return printable(label)


def run_label(run: RunFolder) -> str:
    """Return the name of a run's data, see `data_label`."""
    scored_as = run.config.env_name if run.newest else None
    return data_label(run.config, run.dataset, scored_as)


def evaluated_step(run: RunFolder) -> int:
    """Return the completed updates at a run's last evaluation, 0 if there is none."""
    if run.newest:
        return run.newest[0]
    name = run.holdout_metric
    return max((row["step"] for row in run.rows if name in row), default=0)


def read_experiments(folders: Iterable[Path]) -> list[Experiment]:
    """Read run folders and group them, in the order of CORL's tables.

    A folder that cannot be used is skipped with a warning.

    Raises:
      UserError: no folder can be used.
    """
    found: dict[Path, RunFolder] = {}
    for folder in folders:
        try:
            run = read_run(folder)
            _ = run.rows  # an error in metrics.jsonl skips the run too
            found.setdefault(folder.resolve(), run)
        except (OSError, UserError) as error:
            _warn_skipped(error)
    if not found:
        raise UserError(
            "no runs to report on: none of the given folders could be read; give the "
            "folders of runs, as in runs/*"
        )
    groups = defaultdict(list)
    for run in found.values():
        groups[_group_key(run)].append(run)
    experiments = [Experiment(_select_runs(group)) for group in groups.values()]
    return sorted(_add_settings(experiments), key=_sort_key)


def _warn_skipped(reason: object) -> None:
    warnings.warn(f"{reason} (skipped)", stacklevel=1)


def _group_key(run: RunFolder) -> str:
    """Return what runs of one experiment have in common."""
    config = {key: run.config[key] for key in _identifying_keys(run.config)}
    by_name = run.config.data_path is None
    return json.dumps([run.dataset["sha256"], by_name, config], sort_keys=True)


def _identifying_keys(config: ConfigDict) -> list[str]:
    """Return the keys that are equal in all runs of an experiment."""
    return [
        name
        for name, key in keys_of(config.agent).items()
        if name not in ("train_seed", "num_seeds")
        and (not key.resumable or name in _EVALUATION_KEYS)
    ]


def _select_runs(group: list[RunFolder]) -> tuple[RunFolder, ...]:
    """Return the runs that can be averaged; each seed occurs once.

    If two runs have the same seed, the one with more seeds is selected.
    """
    group = sorted(group, key=lambda run: (-len(run.seeds), run.seeds[0], run.workdir))
    newest = max(group, key=lambda run: (evaluated_step(run), bool(run.newest)))
    selected: dict[int, RunFolder] = {}
    for run in group:
        step, duplicates = evaluated_step(run), selected.keys() & set(run.seeds)
        if step < evaluated_step(newest):
            reason = (
                f"evaluated after {step} updates, other seeds of the same experiment "
                f"after {evaluated_step(newest)}"
            )
        elif _evaluation_kind(run) != _evaluation_kind(newest):
            reason = f"target returns or episodes differ from {newest.workdir}"
        elif duplicates:
            seed = min(duplicates)
            reason = f"seed {seed} is already taken from {selected[seed].workdir}"
        else:
            selected |= dict.fromkeys(run.seeds, run)
            continue
        _warn_skipped(f"{run.workdir}: {reason}")
    return tuple(dict.fromkeys(selected[seed] for seed in sorted(selected)))


def _evaluation_kind(run: RunFolder) -> tuple[bytes, int, bool] | None:
    """Return what evaluations must share; the run's settings may have changed since."""
    if run.newest is None:
        return None
    _, evaluation = run.newest
    scored = evaluation.normalized_scores is not None
    return evaluation.target_returns.tobytes(), len(evaluation.seeds), scored


def _add_settings(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Return the experiments with the settings that distinguish equal labels.

    These are the agent, and the keys that differ between experiments of one agent.
    """
    groups, named = defaultdict(list), []
    for experiment in experiments:
        groups[experiment.label].append(experiment)
    for group in groups.values():
        agents = defaultdict(list)
        for experiment in group:
            agents[experiment.config.agent].append(experiment)
        for agent, same in agents.items():
            keys = _identifying_keys(same[0].config)
            columns = [_settings(k, [e.config[k] for e in same]) for k in keys]
            varied = [column for column in columns if len({*column}) > 1]
            if len(agents) > 1:
                varied.insert(0, [f"agent={agent}" for _ in same])
            if len({*map(_sha256, group)}) > 1:
                varied.append([f"sha256={_sha256(e)[:8]}" for e in same])
            for experiment, *settings in zip(same, *varied, strict=True):
                text = ", ".join(filter(None, settings))
                named.append(replace(experiment, settings=text))
    return named


def _settings(key: str, values: Sequence[Any]) -> list[str]:
    """Return "key=value" for the values of a key; "" for a path that is not set."""
    if key not in _PATHS:
        return [f"{key}={format_value(value)}" for value in values]
    return [f"{key}={path}" if path else "" for path in _shorten(values)]


def _shorten(paths: Sequence[str | None]) -> list[str]:
    """Return the last parts of paths, as many as distinguish them; "" for None."""
    parts = [Path(path).parts if path else () for path in paths]
    longest = max(map(len, parts))
    count = next(
        n
        for n in range(1, longest + 2)
        if len({each[-n:] for each in parts}) == len({*parts})
    )
    return [printable(str(Path(*x[-count:]))) if x else "" for x in parts]


def _sha256(experiment: Experiment) -> str:
    return experiment.runs[0].dataset["sha256"]


def format_value(value: Any) -> str:
    """Return the value of a configuration key as text."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ",".join(map(format_value, value))
    return printable(str(value))


def _sort_key(experiment: Experiment) -> tuple[int, str]:
    known = list(PUBLISHED)
    if experiment.label in known:
        return known.index(experiment.label), experiment.settings
    return len(known), experiment.name
