"""What runs that differ in their seed alone come to together."""

import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from dt_jax.utils.errors import UserError

_REPETITIONS = 2000  # of the bootstrap


class Curve(NamedTuple):
    """A metric over a run of S seeds.

    Attributes:
      steps: [T], updates completed.
      values: [S, T].
    """

    steps: np.ndarray
    values: np.ndarray


def joined(curves: Sequence[Curve]) -> Curve:
    """Return the curves of several runs as one, at the steps that all of them have."""
    steps = curves[0].steps
    for curve in curves[1:]:
        steps = np.intersect1d(steps, curve.steps)
    return Curve(
        steps,
        np.concatenate(
            [curve.values[:, np.isin(curve.steps, steps)] for curve in curves]
        ),
    )


def across_seeds(
    seeds: Sequence[int],
    metrics: Mapping[str, np.ndarray],
    compared: Container[str] = (),
) -> dict[str, float]:
    """Return metrics [S] of S seeds as a row of numbers; of one seed, just them [].

    A seed's own are called seed_<seed>/<name>. Under the plain name stands their mean,
    under <name>/std their standard deviation (dividing by S).

    Args:
      seeds: the S seeds.
      metrics: the values of each metric.
      compared: the metrics that also get <name>/iqm, the mean of the middle half, with
        its 95% bootstrap interval over seeds, <name>/iqm_low and <name>/iqm_high
        (Agarwal et al., 2021, https://arxiv.org/abs/2108.13264).
    """
    if len(seeds) == 1:
        return {name: float(value) for name, value in metrics.items()}
    row: dict[str, float] = {}
    for name, values in metrics.items():
        row[name] = float(np.mean(values))
        row[f"{name}/std"] = float(np.std(values))
        if name in compared:
            iqm, low, high = interquartile_mean(values)
            row |= {f"{name}/iqm": iqm, f"{name}/iqm_low": low}
            row[f"{name}/iqm_high"] = high
    for i, seed in enumerate(seeds):
        row |= {f"seed_{seed}/{name}": float(v[i]) for name, v in metrics.items()}
    return row


def interquartile_mean(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of the middle half of values [S], and its 95% interval."""
    return _interquartile_mean(tuple(map(float, values)))


@lru_cache(maxsize=1000)  # a report tells each several times
def _interquartile_mean(values: tuple[float, ...]) -> tuple[float, float, float]:
    library, aggregate = _rliable()
    with warnings.catch_warnings(), _numpys_own_numbers_from(0):
        # arch renames an argument that rliable gives
        warnings.simplefilter("ignore", FutureWarning)
        points, intervals = library.get_interval_estimates(
            {"": np.array(values)[:, None]},  # [runs, tasks]
            lambda scores: np.array([aggregate.aggregate_iqm(scores)]),
            reps=_REPETITIONS,
        )
    low, high = intervals[""][:, 0]
    return float(points[""][0]), float(low), float(high)


@contextmanager
def _numpys_own_numbers_from(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator for a while.

    rliable draws from it, whatever random_state it is given:
    https://github.com/google-research/rliable, library.py, update_indices.
    """
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def check_rliable() -> None:
    """Raise a UserError if intervals can't be computed here."""
    _rliable()


def _rliable() -> tuple[Any, Any]:
    """Import what takes two seconds, and only runs with several seeds need."""
    try:
        library, metrics = map(import_module, ("rliable.library", "rliable.metrics"))
    except (ImportError, TypeError) as error:  # TypeError: with pandas 3
        raise UserError(
            "num_seeds above 1 needs rliable, for the intervals over seeds: "
            f"pip install 'dt_jax[seeds]' ({error})"
        ) from None
    return library, metrics
