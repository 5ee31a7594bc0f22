"""Aggregate metrics over training seeds."""

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import numpy as np

_RESAMPLES = 2000  # of the bootstrap


class Curve(NamedTuple):
    """A metric over the updates of S seeds."""

    steps: np.ndarray  # [T], completed updates
    values: np.ndarray  # [S, T]


def join_curves(curves: Sequence[Curve]) -> Curve:
    """Concatenate the seeds of several runs, at the steps that all runs have."""
    steps = curves[0].steps
    for curve in curves[1:]:
        steps = np.intersect1d(steps, curve.steps)
    values = [curve.values[:, np.isin(curve.steps, steps)] for curve in curves]
    return Curve(steps, np.concatenate(values))


def aggregate_seeds(
    seeds: Sequence[int],
    metrics: Mapping[str, np.ndarray],
    compared: Container[str] = (),
) -> dict[str, float]:
    """Return one row of metrics for S seeds.

    With several seeds, `<name>` is the mean over seeds, `<name>/std` the standard
    deviation (divided by S), and `seed_<seed>/<name>` the value of one seed. A single
    seed has the plain names only.

    Args:
      seeds: the S seeds.
      metrics: the values [S] of each metric; [] for a single seed.
      compared: metrics that also get `<name>/iqm`, the interquartile mean, and
        `<name>/iqm_low` and `<name>/iqm_high`, its 95% confidence interval.
    """
    if len(seeds) == 1:
        return {name: float(value) for name, value in metrics.items()}
    row: dict[str, float] = {}
    for name, values in metrics.items():
        row[name] = float(np.mean(values))
        row[f"{name}/std"] = float(np.std(values))
        if name in compared:
            names = f"{name}/iqm", f"{name}/iqm_low", f"{name}/iqm_high"
            row |= zip(names, interquartile_mean(values), strict=True)
    for i, seed in enumerate(seeds):
        row |= {f"seed_{seed}/{name}": float(v[i]) for name, v in metrics.items()}
    return row


def interquartile_mean(values: np.ndarray) -> tuple[float, float, float]:
    """Return the interquartile mean (IQM) over seeds and its 95% confidence interval.

    The interval is a percentile bootstrap over seeds. Its generator has a fixed seed:
    the same values always give the same interval, also in a resumed run.

    Source: Agarwal et al., 2021, https://arxiv.org/abs/2108.13264.

    Args:
      values: [S], one value per seed.

    Returns:
      The IQM, and the lower and upper bound of the interval.
    """
    values = np.asarray(values, np.float64)
    size = _RESAMPLES, len(values)
    indices = np.random.default_rng(0).integers(len(values), size=size)
    low, high = np.percentile(_middle_mean(values[indices]), [2.5, 97.5])
    return float(_middle_mean(values)), float(low), float(high)


def _middle_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean without the floor(S/4) lowest and highest of [..., S] values."""
    size = values.shape[-1]
    cut = size // 4
    return np.sort(values, axis=-1)[..., cut : size - cut].mean(axis=-1)
