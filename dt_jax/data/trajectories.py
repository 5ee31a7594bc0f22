"""The read-only store of trajectories that everything else draws from.

It holds what CORL's load_d4rl_trajectories makes of a file, as flat arrays: trajectory
k is the rows starts[k] : starts[k] + lengths[k].
"""

from dataclasses import dataclass

import numpy as np

from dt_jax.data.schema import BLOCK_ROWS, RawData
from dt_jax.errors import UserError


@dataclass(frozen=True, eq=False)
class Trajectories:
    """K complete trajectories of M transitions together; no array can be written to.

    Attributes:
      observations: [M, S] float32, as recorded.
      actions: [M, A] float32.
      rewards: [M] float32.
      returns_to_go: [M] float32, the sum of rewards from here to the trajectory's end.
      starts: [K] int64, the first row of each trajectory.
      lengths: [K] int64, in transitions.
      state_mean: [S] float32, over all rows of the file.
      state_std: [S] float32, over all rows of the file, plus 1e-6.
      dropped_tail: rows after the last trajectory's end; they count in the mean and
        the standard deviation alone, as in CORL.
      source: the file, as error lines name it.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    returns_to_go: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    state_mean: np.ndarray
    state_std: np.ndarray
    dropped_tail: int
    source: str

    @classmethod
    def from_raw(cls, raw: RawData, *, source: str) -> "Trajectories":
        """Cut `raw` into trajectories; the flat arrays are views of it, not copies.

        A trajectory ends at each row with `terminals` or `timeouts` set.

        Raises:
          UserError: not one trajectory is complete.
        """
        ends = np.flatnonzero(raw.terminals | raw.timeouts) + 1
        if len(ends) == 0:
            raise UserError(
                f"{source}: no complete trajectory in {len(raw.rewards)} rows; "
                "set terminals or timeouts in the last row of each"
            )
        starts = np.concatenate([[0], ends[:-1]])
        lengths = ends - starts
        kept = ends[-1]
        state_mean, state_std = _mean_and_std(raw.observations)
        return cls(
            observations=_read_only(raw.observations[:kept]),
            actions=_read_only(raw.actions[:kept]),
            rewards=_read_only(raw.rewards[:kept]),
            returns_to_go=_read_only(_returns_to_go(raw.rewards[:kept], ends, lengths)),
            starts=_read_only(starts),
            lengths=_read_only(lengths),
            state_mean=_read_only(state_mean),
            state_std=_read_only(state_std),
            dropped_tail=int(len(raw.rewards) - kept),
            source=source,
        )

    @property
    def num_transitions(self) -> int:
        """M."""
        return len(self.rewards)

    @property
    def num_trajectories(self) -> int:
        """K."""
        return len(self.starts)

    @property
    def episode_returns(self) -> np.ndarray:
        """The sum of rewards of each trajectory, [K] float32."""
        return self.returns_to_go[self.starts]

    def check_sizes(self, observation_size: int, action_size: int) -> None:
        """Raise a UserError unless S and A are the environment's."""
        sizes = self.observations.shape[1], self.actions.shape[1]
        if sizes != (observation_size, action_size):
            raise UserError(
                f"{self.source}: observations of {sizes[0]} and actions of {sizes[1]} "
                f"numbers don't fit the environment's {observation_size} and "
                f"{action_size}; give the env_name that the data was recorded in"
            )

    def check_lengths(self, episode_len: int) -> None:
        """Raise a UserError if a trajectory has more than episode_len + 1 steps.

        The timestep embedding ends there. One more than the limit is allowed because
        D4RL's own antmaze files have it.
        """
        longest = int(self.lengths.argmax())
        length, limit = int(self.lengths[longest]), episode_len + 1
        if length > limit:
            raise UserError(
                f"{self.source}: trajectory {longest} has {length} steps, more than "
                f"episode_len + 1 = {limit}; use --config.episode_len={length}"
            )


def _read_only(array: np.ndarray) -> np.ndarray:
    """Return a view that can't be written to, and leave the caller's array alone."""
    view = array.view()
    view.setflags(write=False)
    return view


def _mean_and_std(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation + 1e-6 of each column, [S] float32.

    Sums are float64, unlike CORL's, which lose digits over a million rows. They are
    taken in blocks of rows, so that no float64 copy of the data is made.
    """
    count = len(observations)
    blocks = np.array_split(observations, 1 + count // BLOCK_ROWS)
    mean = sum(block.sum(0, dtype=np.float64) for block in blocks) / count
    variance = sum(np.square(block - mean).sum(0) for block in blocks) / count
    std = np.sqrt(variance) + 1e-6
    return mean.astype(np.float32), std.astype(np.float32)


def _returns_to_go(
    rewards: np.ndarray, ends: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Return what CORL's discounted_cumsum gives for gamma 1, to the last bit.

    CORL adds in float32 from a trajectory's end to its start. So does this, for all
    trajectories at once: longest first, those with a row at the current distance from
    their end are always the first few.

    Args:
      rewards: [M] float32.
      ends: [K] the row after each trajectory's last.
      lengths: [K].
    """
    returns = rewards.copy()
    last_rows = ends[np.argsort(-lengths)] - 1
    longer_than = len(lengths) - np.cumsum(np.bincount(lengths))  # [max length + 1]
    for distance in range(1, len(longer_than) - 1):
        rows = last_rows[: longer_than[distance]] - distance
        returns[rows] += returns[rows + 1]
    return returns
