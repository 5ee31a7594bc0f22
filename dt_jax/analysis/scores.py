"""Our scores beside the published ones."""

from dataclasses import dataclass

import numpy as np

from dt_jax.analysis.experiments import Experiment, shown
from dt_jax.analysis.published import Published, Spread, difference, published
from dt_jax.data.minari import PREFIX
from dt_jax.runs.aggregate import interquartile_mean


@dataclass(frozen=True, eq=False)
class Scores:
    """The normalised scores of an experiment, and what they are compared with.

    Attributes:
      experiment: whose.
      foreign: why nothing is published for its data; "" where something is.
      theirs: that.
      deviations: what was done otherwise than CORL did.
      target: the target return of the scores; None where there is none.
      last: the score at the newest evaluation.
      best: the mean of each seed's best evaluation.
      interval: how well `last` is known, in words.
    """

    experiment: Experiment
    foreign: str
    theirs: Published | None
    deviations: tuple[str, ...]
    target: float | None = None
    last: Spread | None = None
    best: Spread | None = None
    interval: str = ""

    @property
    def difference(self) -> float | None:
        """Our last score less CORL's."""
        if self.last is None or self.theirs is None:
            return None
        return difference(self.last.mean, self.theirs.last)

    @property
    def within(self) -> bool | None:
        """Whether that is at most CORL's deviation; None if it did otherwise."""
        if self.theirs is None or self.difference is None or self.deviations:
            return None
        return abs(self.difference) <= (self.theirs.last.std or 0)


def scores_of(experiment: Experiment, intervals: bool) -> Scores:
    """Return the scores of an experiment.

    Args:
      experiment: any.
      intervals: whether bootstrap intervals can be computed here.
    """
    foreign, theirs = why_foreign(experiment), None
    if not foreign:
        theirs = published()[experiment.config.env_name]
    deviations = tuple(_deviations(experiment, theirs)) if theirs else ()
    evaluation = experiment.evaluation
    if evaluation is None or evaluation.normalized_scores is None:
        return Scores(experiment, foreign, theirs, deviations)
    targets = evaluation.target_returns.tolist()
    target = max(targets)
    if theirs and max(theirs.settings["target_returns"]) in targets:
        target = max(theirs.settings["target_returns"])
    episodes = evaluation.normalized_scores[..., targets.index(target), :]
    curve = experiment.curve(f"eval/{target}_normalized_score_mean")
    return Scores(
        experiment,
        foreign,
        theirs,
        deviations,
        target,
        last=_spread(np.atleast_2d(episodes).mean(axis=1)),
        best=_spread(curve.values.max(axis=1)) if curve.steps.size else None,
        interval=_interval(episodes, intervals),
    )


def why_foreign(experiment: Experiment) -> str:
    """Return why nothing is published on the data of an experiment, "" if it is."""
    config = experiment.config
    if config.data_path is not None or config.env_name is None:
        return "own data"
    if config.env_name.startswith(PREFIX):
        return "Minari's data"
    if config.env_name not in published():
        return "demo data"
    return ""


def _deviations(experiment: Experiment, theirs: Published) -> list[str]:
    """Name what an experiment on D4RL's data did otherwise than CORL."""
    config, found = experiment.config, []
    if experiment.step < config.update_steps:
        found.append(f"unfinished: {experiment.step:,} of {config.update_steps:,}")
    for key, value in theirs.settings.items():
        ours = config[key]
        if key == "target_returns":  # more of them do no harm
            same = max(value) in ours
        else:
            same = ours == (tuple(value) if isinstance(value, list) else value)
        if not same:
            found.append(f"{key} {shown(ours)} (CORL: {shown(value)})")
    return found


def _spread(seeds: np.ndarray) -> Spread:
    """Return the mean and the deviation of a score of each seed, [S]."""
    return Spread(float(seeds.mean()), float(seeds.std()) if len(seeds) > 1 else None)


def _interval(episodes: np.ndarray, intervals: bool) -> str:
    """Say how well the mean of the scores [E] or [S, E] is known."""
    if episodes.ndim == 2:
        seeds = episodes.mean(axis=1)
        if intervals:
            iqm, low, high = interquartile_mean(seeds)
            return f"{iqm:.2f} ({low:.2f} to {high:.2f})"
        return f"± {_standard_error(seeds):.2f} s.e. over seeds"
    if len(episodes) == 1:
        return "one episode"
    return f"± {_standard_error(episodes):.2f} s.e. over episodes"


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
