"""Runs that differ in their seed alone, taken together."""

import json
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dt_jax.analysis.published import published
from dt_jax.analysis.summary import data_label
from dt_jax.config.keys import keys_of
from dt_jax.evaluation.run_evaluator import HOLDOUT_METRIC as HOLDOUT
from dt_jax.runs import folder as runs
from dt_jax.runs.aggregate import Curve, joined
from dt_jax.runs.evaluations import Evaluation
from dt_jax.runs.folder import RunFolder as Run
from dt_jax.utils.errors import UserError, printable

# What bears on the scores, though not on the updates done before it was changed.
_MEASURED_WITH = {"update_steps", "target_returns", "eval_episodes", "eval_seed"}
_WITHOUT_BEARING = {
    "train_seed",
    "num_seeds",
    *(key.name for key in keys_of("dt").values() if key.resumable),
} - _MEASURED_WITH


@dataclass(frozen=True, eq=False)
class Experiment:
    """Runs of the same data and settings.

    Attributes:
      runs: those whose newest evaluation is after the same number of updates.
      settings: what tells it from other experiments on the same data; "" if none is.
    """

    runs: tuple[Run, ...]
    settings: str = ""

    @property
    def config(self) -> ConfigDict:
        """The first run's."""
        return self.runs[0].config

    @property
    def label(self) -> str:
        """What it was trained on, and scored as."""
        scored_as = self.config.env_name if self.runs[0].newest else None
        return data_label(self.config, self.runs[0].dataset, scored_as)

    @property
    def name(self) -> str:
        """The label, and the settings."""
        return f"{self.label}, {self.settings}" if self.settings else self.label

    @property
    def seeds(self) -> list[int]:
        """The S seeds of training."""
        return [seed for run in self.runs for seed in run.seeds]

    @property
    def step(self) -> int:
        """Updates before the newest evaluation."""
        return evaluated_after(self.runs[0])

    @property
    def evaluation(self) -> Evaluation | None:
        """The newest one's episodes, of several seeds as [S, K, E]."""
        found = [run.newest[1] for run in self.runs if run.newest]
        if len(found) < 2:
            return found[0] if found else None
        first = found[0]
        return replace(
            first,
            returns=_stacked([each.returns for each in found]),
            lengths=_stacked([each.lengths for each in found]),
            normalized_scores=(
                None
                if first.normalized_scores is None
                else _stacked([each.normalized_scores for each in found])
            ),
        )

    def curve(self, metric: str) -> Curve:
        """Return a metric over the updates, of each seed; T may be 0."""
        return joined([run.curve(metric) for run in self.runs])


def _stacked(arrays: Sequence[Any]) -> np.ndarray:
    """Return arrays [K, E] or [S, K, E] as one of all their seeds."""
    return np.concatenate([np.reshape(a, (-1, *a.shape[-2:])) for a in arrays])


def evaluated_after(run: Run) -> int:
    """Return the updates before a run's newest evaluation, 0 if there is none."""
    if run.newest:
        return run.newest[0]
    return max((row["step"] for row in run.rows if HOLDOUT in row), default=0)


def read(folders: Iterable[Path]) -> list[Experiment]:
    """Return the experiments in the folders of runs, in the order of CORL's tables.

    A folder that is of no use is named in a warning, and the others are taken.

    Raises:
      UserError: none of them is of use.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        try:
            found.setdefault(folder.resolve(), runs.read_run(folder))
        except (OSError, UserError) as error:
            _leave_out(error)
    if not found:
        raise UserError("no run to report on: name the folders of runs, as in runs/*")
    groups = defaultdict(list)
    for run in found.values():
        groups[_identity(run)].append(run)
    experiments = [Experiment(_together(group)) for group in groups.values()]
    return sorted(_told_apart(experiments), key=_place)


def _leave_out(why: object) -> None:
    warnings.warn(f"{why} (left out)", stacklevel=1)


def _identity(run: Run) -> str:
    """Return what is the same in runs that differ in their seed alone."""
    config = {k: v for k, v in run.config.items() if k not in _WITHOUT_BEARING}
    named = run.config.data_path is None
    return json.dumps([run.dataset["sha256"], named, config], sort_keys=True)


def _together(group: list[Run]) -> tuple[Run, ...]:
    """Return the runs whose means can be taken, each seed once.

    Of two with the same seed, that with more seeds is taken.
    """
    group = sorted(group, key=lambda run: (-len(run.seeds), run.seeds[0], run.workdir))
    first = max(group, key=lambda run: (evaluated_after(run), bool(run.newest)))
    taken: dict[int, Run] = {}
    for run in group:
        twice = [seed for seed in run.seeds if seed in taken]
        if evaluated_after(run) < evaluated_after(first):
            _leave_out(
                f"{run.workdir}: evaluated after {evaluated_after(run)} updates, and "
                f"other seeds of the same run after {evaluated_after(first)}"
            )
        elif _played(run) != _played(first):
            _leave_out(
                f"{run.workdir}: evaluated at other targets, or with other episodes, "
                f"than {first.workdir}"
            )
        elif twice:
            _leave_out(
                f"{run.workdir}: seed {twice[0]} of the same run is in "
                f"{taken[twice[0]].workdir}"
            )
        else:
            taken |= dict.fromkeys(run.seeds, run)
    return tuple(dict.fromkeys(taken[seed] for seed in sorted(taken)))


def _played(run: Run) -> tuple[list[float], int, bool] | None:
    """Return of what kind the newest evaluation is; settings may have changed since."""
    if run.newest is None:
        return None
    _, evaluation = run.newest
    scored = evaluation.normalized_scores is not None
    return evaluation.target_returns.tolist(), len(evaluation.seeds), scored


def _told_apart(experiments: list[Experiment]) -> list[Experiment]:
    """Return them with what differs between those on the same data."""
    alike = defaultdict(list)
    for experiment in experiments:
        alike[experiment.label].append(experiment)
    return [
        replace(experiment, settings=", ".join(settings))
        for group in alike.values()
        for experiment, settings in zip(group, _differing(group), strict=True)
    ]


def _differing(group: list[Experiment]) -> list[list[str]]:
    """Return the settings of each that are not the same in all."""
    columns = [
        [f"{key}={shown(experiment.config[key])}" for experiment in group]
        for key in group[0].config
        if key not in _WITHOUT_BEARING
    ]
    columns.append([f"sha256={e.runs[0].dataset['sha256'][:8]}" for e in group])
    varied = [column for column in columns if len(set(column)) > 1]
    return [[column[i] for column in varied] for i in range(len(group))]


def shown(value: Any) -> str:
    """Return the value of a key as text."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ",".join(map(shown, value))
    return printable(str(value))


def _place(experiment: Experiment) -> tuple[int, str]:
    known = list(published())
    if experiment.label in known:
        return known.index(experiment.label), experiment.settings
    return len(known), experiment.name
