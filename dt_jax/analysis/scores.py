"""Normalised scores of an experiment and their comparison with published scores."""

from dataclasses import dataclass, replace

import numpy as np

from dt_jax.analysis.experiments import Experiment, format_value
from dt_jax.analysis.published import PUBLISHED, Published, Spread
from dt_jax.data.minari import PREFIX
from dt_jax.runs.aggregate import interquartile_mean

_DIGITS = 2  # decimals of CORL's scores


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of an experiment.

    Attributes:
      experiment: the experiment.
      published: the published scores on its dataset; None if there are none.
      not_comparable: why nothing is published for its data; "" otherwise.
      deviations: settings that differ from CORL's, as text.
      target: the target return of the scores; None without scores, NaN for an agent
        without target returns.
      last: the score at the last evaluation.
      best: the mean of the best evaluation of each seed, after at least one update.
      interval: the uncertainty of `last`, as text.
    """

    experiment: Experiment
    published: Published | None
    not_comparable: str
    deviations: tuple[str, ...]
    target: float | None = None
    last: Spread | None = None
    best: Spread | None = None
    interval: str = ""

    @property
    def difference(self) -> float | None:
        """The last score minus CORL's, with the number of digits that CORL prints."""
        if self.last is None or self.published is None:
            return None
        ours, theirs = round(self.last.mean, _DIGITS), self.published.last.mean
        return round(ours - theirs, _DIGITS)

    @property
    def within(self) -> bool | None:
        """Whether the difference is at most CORL's standard deviation.

        None if there is no difference or any setting deviates from CORL's.
        """
        if self.published is None or self.difference is None or self.deviations:
            return None
        return abs(self.difference) <= (self.published.last.std or 0)


def compute_scores(experiment: Experiment) -> Scores:
    """Return the scores of an experiment beside the published ones.

    The target return is the largest one of CORL, because that is the score CORL
    publishes (its results/get_offline_scores.py selects the largest target). If the
    experiment has other targets or other data, it is the experiment's largest one.
    """
    config, reason, reference = experiment.config, "", None
    if config.data_path is not None or config.env_name is None:
        reason = "own data"
    elif config.env_name.startswith(PREFIX):
        reason = "Minari data"
    elif config.env_name not in PUBLISHED:
        reason = "demo data"
    else:
        reference = PUBLISHED[config.env_name]
    deviations = _deviations(experiment, reference) if reference else []
    scores = Scores(experiment, reference, reason, tuple(deviations))
    evaluation = experiment.evaluation
    if evaluation is None or evaluation.normalized_scores is None:
        return scores
    targets = evaluation.target_returns.tolist()
    index = int(np.argmax(targets))
    if reference and max(reference.settings["target_returns"]) in targets:
        index = targets.index(max(reference.settings["target_returns"]))
    episodes = evaluation.normalized_scores[..., index, :]
    curve = experiment.target_curve(targets[index], "normalized_score")
    trained = curve.values[:, curve.steps > 0]  # checkpoints have no step 0
    return replace(
        scores,
        target=targets[index],
        last=_spread(np.atleast_2d(episodes).mean(axis=1)),
        best=_spread(trained.max(axis=1)) if trained.size else None,
        interval=_interval(episodes),
    )


def _deviations(experiment: Experiment, reference: Published) -> list[str]:
    """Return the settings of an experiment on D4RL data that differ from CORL's."""
    config, found = experiment.config, []
    if config.agent != reference.settings["agent"]:
        return [f"agent {config.agent} (CORL: {reference.settings['agent']})"]
    if experiment.step < config.update_steps:
        found.append(f"unfinished: {experiment.step:,} of {config.update_steps:,}")
    for key, value in reference.settings.items():
        ours = config[key]
        if key == "target_returns":
            same = max(value) in ours  # further targets do not change this score
        else:
            same = ours == (tuple(value) if isinstance(value, list) else value)
        if not same:
            found.append(f"{key} {format_value(ours)} (CORL: {format_value(value)})")
    return found


def _spread(values: np.ndarray) -> Spread:
    """Return mean and standard deviation of one value per seed, [S]."""
    std = float(values.std()) if len(values) > 1 else None
    return Spread(float(values.mean()), std)


def _interval(episodes: np.ndarray) -> str:
    """Return the uncertainty of the mean of scores [E] or [S, E], as text."""
    if episodes.ndim == 2:
        iqm, low, high = interquartile_mean(episodes.mean(axis=1))
        return f"{iqm:.2f} ({low:.2f} to {high:.2f})"
    if len(episodes) == 1:
        return "one episode"
    error = episodes.std(ddof=1) / np.sqrt(len(episodes))
    return f"± {error:.2f} s.e. over episodes"
