"""Training batches: windows of trajectories, drawn at random."""

import mmap
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dt_jax.data.labels import Labels
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.trajectories import Trajectories
from dt_jax.types import Batch

KINDS = "windows", "window_ends", "episodes"
_UNUSED = np.zeros(1, np.float32)


class DeviceDataset(NamedTuple):
    """The arrays that batches are gathered from, and the units to bring them into."""

    observations: np.ndarray  # [M, S]
    actions: np.ndarray  # [M, A]
    rewards: np.ndarray  # [M]; like the next three, [1] where no field needs it
    returns_to_go: np.ndarray  # [M], or labels in their place
    offsets: np.ndarray  # [M], see `Labels`
    true_returns: np.ndarray  # [M], the returns-to-go even where there are labels
    state_mean: np.ndarray  # [S]
    state_std: np.ndarray  # [S]
    action_center: np.ndarray  # [A]
    action_scale: np.ndarray  # [A]
    reward_scale: np.ndarray  # []


class WindowIndices(NamedTuple):
    """Where windows are in the dataset, and what follows their first transition."""

    rows: np.ndarray  # [B] of the dataset's arrays, the first of each window
    timesteps: np.ndarray  # [B] of the first row
    size: np.ndarray  # [B] transitions in the window, at most T
    left: np.ndarray  # [B] transitions from there to the trajectory's end, from 1
    terminated: np.ndarray  # [B] whether the trajectory ended by termination


class Sampler:
    """Draws windows of `context_len` steps that never cross a trajectory's end.

    The batch of a step depends only on the seed and the step, so that a resumed run
    draws what an uninterrupted one would have drawn.

    Windows are drawn by one of their transitions:

    "windows" by their first. CORL draws a trajectory by
    `np.random.choice(len(self.dataset), p=self.sample_prob)` with probabilities in
    proportion to its length, then a start in it uniformly. Each transition is then the
    start with the same probability, length/M times 1/length, so one uniform draw over
    all M transitions is equivalent.

    "window_ends" by their last: they begin up to T - 1 transitions before it, in the
    same trajectory.

    "episodes" are whole trajectories, each drawn with the same probability.
    """

    def __init__(
        self,
        trajectories: Trajectories,
        normalizer: Normalizer,
        *,
        batch_size: int,
        context_len: int,
        seed: int,
        fields: tuple[str, ...],
        kind: str = "windows",
        labels: Labels | None = None,
    ):
        """Prepare to draw from trajectories.

        Args:
          trajectories: where the windows come from.
          normalizer: the units of the batches.
          batch_size: B.
          context_len: T.
          seed: not negative.
          fields: those of `Batch` to fill.
          kind: how windows are drawn, see `Agent.batch_kind`.
          labels: in place of the returns-to-go, if any.
        """
        self.batch_size = batch_size
        self.context_len = context_len
        self.fields = fields
        self.num_transitions = trajectories.num_transitions
        self._kind = kind
        labels = labels or Labels(trajectories.returns_to_go)
        self.has_offsets = labels.offsets is not None
        self.dataset = DeviceDataset(
            trajectories.observations,
            trajectories.actions,
            trajectories.rewards if "rewards" in fields else _UNUSED,
            labels.values if "returns_to_go" in fields else _UNUSED,
            _UNUSED if labels.offsets is None else labels.offsets,
            trajectories.returns_to_go if "episode_returns" in fields else _UNUSED,
            normalizer.state_mean,
            normalizer.state_std,
            normalizer.action_center,
            normalizer.action_scale,
            np.asarray(normalizer.reward_scale, np.float32),
        )
        self._seed = seed
        self._starts, self._lengths = trajectories.starts, trajectories.lengths
        self._terminated = trajectories.terminated
        self._ends = np.cumsum(self._lengths)  # counted in transitions
        for array in self.dataset[:6]:
            _disable_read_ahead(array)

    def indices(self, step: int) -> np.ndarray:
        """Return the transitions [B] int64 by which the windows of `step` are drawn."""
        generator = np.random.default_rng([self._seed, step])
        if self._kind == "episodes":
            first = self._ends - self._lengths
            return first[generator.integers(len(first), size=self.batch_size)]
        return generator.integers(self.num_transitions, size=self.batch_size)

    def windows(self, indices: np.ndarray) -> WindowIndices:
        """Return where the windows drawn by the transitions `indices` [B] are."""
        trajectory = np.searchsorted(self._ends, indices, side="right")  # [B]
        lengths = self._lengths[trajectory]
        timesteps = lengths - (self._ends[trajectory] - indices)
        left = lengths - timesteps
        size = np.minimum(left, self.context_len)
        if self._kind == "window_ends":
            size = np.minimum(timesteps + 1, self.context_len)
            timesteps = timesteps + 1 - size
            left = lengths - timesteps
        rows = self._starts[trajectory] + timesteps
        return WindowIndices(rows, timesteps, size, left, self._terminated[trajectory])

    def gather(self, indices: np.ndarray) -> Batch:
        """Return the windows [B, T] drawn by the transitions `indices` [B].

        Past a window's end all but the timesteps is zero; the timesteps continue.
        """
        data, windows = self.dataset, self.windows(indices)
        slots = np.arange(self.context_len)  # [T]
        rows = windows.rows[:, None] + slots  # [B, T]
        size, left = windows.size[:, None], windows.left[:, None]

        # Scaled window by window: rows that are never drawn are never touched, and
        # there is one copy of the data.
        def vectors(
            values: np.ndarray, offset: np.ndarray, scale: np.ndarray, shift: int = 0
        ) -> np.ndarray:
            taken = _take(values, rows + shift)
            taken -= offset
            taken /= scale
            taken[(slots >= size) | (slots >= left - shift)] = 0
            return taken

        def numbers(values: np.ndarray, offsets: np.ndarray | None) -> np.ndarray:
            taken = _take(values, rows)
            if offsets is not None:
                taken = taken + _take(offsets, windows.rows + windows.size - 1)[:, None]
            taken = taken * data.reward_scale
            taken[slots >= size] = 0
            return taken

        def episode_returns() -> np.ndarray:
            taken = _take(data.true_returns, windows.rows - windows.timesteps)
            return np.where(slots < size, (taken * data.reward_scale)[:, None], 0)

        def terminals() -> np.ndarray:
            last = (slots == left - 1) & (slots < size)
            return (last & windows.terminated[:, None]).astype(np.float32)

        offsets = data.offsets if self.has_offsets else None
        state_units = data.state_mean, data.state_std
        action_units = data.action_center, data.action_scale
        make: dict[str, Callable[[], np.ndarray]] = {
            "states": lambda: vectors(data.observations, *state_units),
            "actions": lambda: vectors(data.actions, *action_units),
            "rewards": lambda: numbers(data.rewards, None),
            "returns_to_go": lambda: numbers(data.returns_to_go, offsets),
            "timesteps": lambda: (windows.timesteps[:, None] + slots).astype(np.int32),
            "mask": lambda: (slots < size).astype(np.float32),
            "terminals": terminals,
            "next_states": lambda: vectors(data.observations, *state_units, shift=1),
            "has_next": lambda: ((slots < size) & (slots < left - 1)).astype(
                np.float32
            ),
            "episode_returns": episode_returns,
        }
        return Batch(**{name: make[name]() for name in self.fields})

    def batch(self, step: int) -> Batch:
        """Return the batch of `step`, counted from 0."""
        return self.gather(self.indices(step))

    def tiling(self) -> np.ndarray:
        """Return the transitions at which windows that tile all trajectories start."""
        lengths = self._lengths
        counts = -(-lengths // self.context_len)  # [K] windows
        first = np.repeat(self._ends - lengths, counts)
        position = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        return first + position * self.context_len


def _take(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return `values[rows]` as float32; rows past the end, padding, are clipped."""
    if values.flags.aligned and values.flags.c_contiguous:
        taken = values.take(rows, axis=0, mode="clip")
    else:  # as mapped archives may be: `take` would first copy all of it
        taken = values[np.minimum(rows, len(values) - 1)]
    return taken.astype(np.float32, copy=False)


def _disable_read_ahead(array: np.ndarray) -> None:
    """Have the system read single pages of a mapped array, not megabytes around them.

    Neighbours of a window are seldom drawn soon: see benchmarks/large_data.py.
    """
    if isinstance(array, np.memmap) and hasattr(mmap, "MADV_RANDOM"):  # not on Windows
        array._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
