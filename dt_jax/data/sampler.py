"""Training batches: windows of trajectories, drawn at random."""

import numpy as np

from dt_jax.data.trajectories import Trajectories
from dt_jax.types import Batch


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
        action_center: np.ndarray | float = 0.0,
        action_scale: np.ndarray | float = 1.0,
    ):
        """Bring the data into the network's units.

        Args:
          trajectories: where the windows come from.
          batch_size: B.
          seq_len: T.
          reward_scale: factor from returns to the network's.
          seed: not negative.
          action_center: [A] float32, the action that is 0 to the network.
          action_scale: [A] float32, the network's 1 in the environment's units.
        """
        self.batch_size = batch_size
        self.seq_len = seq_len
        self.seed = seed
        self.num_transitions = trajectories.num_transitions
        # All rows are mapped once: doing it batch by batch takes longer than everything
        # else.
        self._actions = trajectories.actions - np.float32(action_center)
        self._actions /= np.float32(action_scale)
        self._states = trajectories.observations - trajectories.state_mean
        self._states /= trajectories.state_std
        self._returns_to_go = trajectories.returns_to_go * np.float32(reward_scale)
        starts, lengths = trajectories.starts, trajectories.lengths
        rows = np.arange(self.num_transitions)
        self._timesteps = (rows - np.repeat(starts, lengths)).astype(np.int32)
        self._remaining = (np.repeat(starts + lengths, lengths) - rows).astype(np.int32)

    def indices(self, step: int) -> np.ndarray:
        """Return the transitions [B] int64 at which the windows of `step` start."""
        generator = np.random.default_rng([self.seed, step])
        return generator.integers(self.num_transitions, size=self.batch_size)

    def gather(self, indices: np.ndarray) -> Batch:
        """Return the windows [B, T] that start at the transitions `indices` [B].

        Past a trajectory's end all but the timesteps is zero; the timesteps count on.
        """
        offsets = np.arange(self.seq_len, dtype=np.int32)
        valid = offsets < self._remaining[indices, None]  # [B, T]
        rows = indices[:, None] + offsets  # [B, T]

        def window(values: np.ndarray) -> np.ndarray:
            # Rows past the last transition are clipped: they are padding anyway.
            taken = values.take(rows, axis=0, mode="clip")
            taken[~valid] = 0
            return taken

        return Batch(
            states=window(self._states),
            actions=window(self._actions),
            returns_to_go=window(self._returns_to_go),
            timesteps=self._timesteps[indices, None] + offsets,
            mask=valid.astype(np.float32),
        )

    def batch(self, step: int) -> Batch:
        """Return the batch of `step`, counted from 0."""
        return self.gather(self.indices(step))
