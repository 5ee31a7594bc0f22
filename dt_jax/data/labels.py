"""Labels: what an agent sees in training in place of the returns-to-go."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

ROUNDING = 1e-5  # of sums of rewards, relative to the largest return


class Labels(NamedTuple):
    """A number in place of the return-to-go of each row of a dataset.

    Attributes:
      values: [rows] float32, in reward units.
      offsets: [rows] float32, or None. A window that ends at row e shows
        values[i] + offsets[e] at each of its rows i.
    """

    values: np.ndarray
    offsets: np.ndarray | None = None

    def sha256(self) -> str:
        """Return a hash of the arrays, in hexadecimal."""
        digest = hashlib.sha256()
        for array in self:
            digest.update(b"" if array is None else array.tobytes())
        return digest.hexdigest()


def relabel(
    rewards: np.ndarray, values: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Return the labels of Q-learning DT (Yamagata et al., 2023, algorithm 1).

    From each trajectory's end, R_{L-1} = r_{L-1} and R_t = r_t + max(R_{t+1},
    V(s_{t+1})). The value after the last step is not used: it is 0 after a termination,
    and unknown after a time limit, where episodes of evaluation end as well.

    Args:
      rewards: [rows].
      values: [rows], the value of each observation, in reward units.
      starts: [K], the first row of each trajectory.
      lengths: [K], in rows.

    Returns:
      [rows] float32; 0 in rows of no trajectory.
    """
    labels = np.zeros(len(rewards), np.float64)
    ends, longer = starts + lengths, np.argsort(-lengths, kind="stable")
    # From the ends backwards, for all trajectories at once: the longest come first.
    shorter = np.searchsorted(np.sort(lengths), np.arange(lengths.max()), "right")
    for distance, count in enumerate(len(ends) - shorter, 1):
        rows = ends[longer[:count]] - distance
        labels[rows] = rewards[rows]
        if distance > 1:
            labels[rows] += np.maximum(labels[rows + 1], values[rows + 1])
    return labels.astype(np.float32)


def round_labels(labels: np.ndarray, step: float) -> np.ndarray:
    """Return labels rounded to multiples of `step`; of 0, as they are."""
    if step == 0:
        return labels
    return (np.round(labels / step) * step).astype(labels.dtype)


def describe_labels(
    labels: Labels, returns: np.ndarray, starts: np.ndarray
) -> dict[str, Any]:
    """Return how labels differ from the returns-to-go that they replace.

    Labels are those that a window's last row shows. Shares are of rows;
    "relabelled" differ by more than rounding. "largest" is
    of the trajectories' first steps: the target return that asks for the most.

    Args:
      labels: of the dataset.
      returns: [rows], the returns-to-go in reward units.
      starts: [K], the first row of each trajectory.
    """
    returns = returns.astype(np.float64)
    shown = at_window_ends(labels).astype(np.float64)
    difference = shown - returns
    rounding = ROUNDING * np.abs(returns).max()
    edges = np.histogram_bin_edges(np.concatenate([returns, shown]), bins=50)
    return {
        "sha256": labels.sha256(),
        "share_relabelled": float(np.mean(np.abs(difference) > rounding)),
        "difference_median": float(np.median(difference)),
        "difference_90th_percentile": float(np.quantile(difference, 0.9)),
        "largest": float(shown[starts].max()),
        "share_below_return": float(np.mean(difference < -rounding)),
        "histogram": {
            "edges": edges.tolist(),
            "returns": np.histogram(returns, edges)[0].tolist(),
            "labels": np.histogram(shown, edges)[0].tolist(),
        },
    }


def at_window_ends(labels: Labels) -> np.ndarray:
    """Return the label of each row where it is the last of a window, [rows]."""
    if labels.offsets is None:
        return labels.values
    return labels.values + labels.offsets
