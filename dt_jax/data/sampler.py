"""Training batches: windows of trajectories, drawn at random."""

import mmap
from typing import NamedTuple

import numpy as np

from dt_jax.data.trajectories import Trajectories
from dt_jax.types import Batch


class Data(NamedTuple):
    """A dataset, and what brings it into the network's units."""

    observations: np.ndarray  # [M, S]
    actions: np.ndarray  # [M, A]
    returns_to_go: np.ndarray  # [M]
    state_mean: np.ndarray  # [S], the state that is 0 to the network
    state_std: np.ndarray  # [S], the network's 1 in the environment's units
    action_center: np.ndarray  # [A], or a number
    action_scale: np.ndarray  # [A], or a number
    reward_scale: np.ndarray  # from returns to the network's


class Windows(NamedTuple):
    """Where windows lie, and what there is of them."""

    rows: np.ndarray  # [B] of the dataset's arrays, the first of each window
    timesteps: np.ndarray  # [B] the first one's
    left: np.ndarray  # [B] transitions from there to the trajectory's end, from 1


class Sampler:
    """Draws windows of `seq_len` steps that never cross a trajectory's end.

    The batch of a step depends on the seed and the step alone, so that a resumed run
    draws what an uninterrupted one would have drawn.

    CORL draws a trajectory by `np.random.choice(len(self.dataset), p=self.sample_prob)`
    with probabilities in proportion to its length, then a start in it uniformly. Each
    transition is then the start with the same probability, length/M times 1/length, so
    one uniform draw over all M transitions does both.
    """

    def __init__(
        self,
        trajectories: Trajectories,
        *,
        batch_size: int,
        seq_len: int,
        reward_scale: float,
        seed: int,
        state_mean: np.ndarray,
        state_std: np.ndarray,
        action_center: np.ndarray | float = 0.0,
        action_scale: np.ndarray | float = 1.0,
    ):
        """Set what brings the data into the network's units.

        Args:
          trajectories: where the windows come from.
          batch_size: B.
          seq_len: T.
          reward_scale: factor from returns to the network's.
          seed: not negative.
          state_mean: [S] float32, the state that is 0 to the network.
          state_std: [S] float32, the network's 1 in the environment's units.
          action_center: [A] float32, the action that is 0 to the network.
          action_scale: [A] float32, the network's 1 in the environment's units.
        """
        self.batch_size = batch_size
        self.seq_len = seq_len
        self.num_transitions = trajectories.num_transitions
        self.data = Data(
            trajectories.observations,
            trajectories.actions,
            trajectories.returns_to_go,
            state_mean,
            state_std,
            np.asarray(action_center, np.float32),
            np.asarray(action_scale, np.float32),
            np.asarray(reward_scale, np.float32),
        )
        self._seed = seed
        self._starts, self._lengths = trajectories.starts, trajectories.lengths
        self._ends = np.cumsum(self._lengths)  # counted in transitions
        for array in self.data[:3]:
            _read_no_further(array)

    def indices(self, step: int) -> np.ndarray:
        """Return the transitions [B] int64 at which the windows of `step` start."""
        generator = np.random.default_rng([self._seed, step])
        return generator.integers(self.num_transitions, size=self.batch_size)

    def windows(self, indices: np.ndarray) -> Windows:
        """Return where the windows that start at the transitions `indices` [B] lie."""
        trajectory = np.searchsorted(self._ends, indices, side="right")  # [B]
        left = self._ends[trajectory] - indices
        timesteps = self._lengths[trajectory] - left
        return Windows(self._starts[trajectory] + timesteps, timesteps, left)

    def gather(self, indices: np.ndarray) -> Batch:
        """Return the windows [B, T] that start at the transitions `indices` [B].

        Past a trajectory's end all but the timesteps is zero; the timesteps count on.
        """
        data, windows = self.data, self.windows(indices)
        slots = np.arange(self.seq_len)  # [T]
        rows = windows.rows[:, None] + slots  # [B, T]
        valid = slots < windows.left[:, None]
        timesteps = windows.timesteps[:, None] + slots

        def window(values: np.ndarray) -> np.ndarray:
            # Rows past the last transition are clipped: they are padding anyway.
            if values.flags.aligned and values.flags.c_contiguous:
                taken = values.take(rows, axis=0, mode="clip")
            else:  # as mapped archives may be: `take` would first copy all of it
                taken = values[np.minimum(rows, len(values) - 1)]
            return taken.astype(np.float32, copy=False)

        def padded(values: np.ndarray) -> np.ndarray:
            values[~valid] = 0
            return values

        # Scaled window by window: rows that are never drawn are never touched, and
        # there is one copy of the data.
        states = window(data.observations)
        states -= data.state_mean
        states /= data.state_std
        actions = window(data.actions)
        actions -= data.action_center
        actions /= data.action_scale
        return Batch(
            states=padded(states),
            actions=padded(actions),
            returns_to_go=padded(window(data.returns_to_go) * data.reward_scale),
            timesteps=timesteps.astype(np.int32),
            mask=valid.astype(np.float32),
        )

    def batch(self, step: int) -> Batch:
        """Return the batch of `step`, counted from 0."""
        return self.gather(self.indices(step))

    def side_by_side(self) -> np.ndarray:
        """Return the transitions at which windows that tile all trajectories start."""
        lengths = self._lengths
        counts = -(-lengths // self.seq_len)  # [K] windows
        first = np.repeat(self._ends - lengths, counts)
        place = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        return first + place * self.seq_len


def _read_no_further(array: np.ndarray) -> None:
    """Have the system read single pages of a mapped array, not megabytes around them.

    What is around a window is seldom drawn soon. benchmarks/large_data.py measures it.
    """
    if isinstance(array, np.memmap):
        array._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
