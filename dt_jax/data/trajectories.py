"""The read-only store of trajectories that everything else draws from.

It holds what CORL's load_d4rl_trajectories makes of a file, as flat arrays: trajectory
k is the rows starts[k] : starts[k] + lengths[k].
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dt_jax.data.aligned import aligned_empty
from dt_jax.data.cache import writing_to_cache
from dt_jax.data.limits import check_room
from dt_jax.data.schema import RawData
from dt_jax.data.statistics import column_statistics
from dt_jax.utils.errors import UserError

_ROWS_AT_ONCE = 1 << 20  # of which returns-to-go are computed together


@dataclass(frozen=True, eq=False)
class Trajectories:
    """K complete trajectories of M transitions together; no array can be written to.

    Of a part (see `hold_out`), the flat arrays are those of the whole.

    Attributes:
      observations: [rows, S] float32, as recorded; any width where they are mapped.
      actions: [rows, A], the same.
      rewards: [rows], the same.
      returns_to_go: [rows] float32, the sum of rewards from here to the trajectory's
        end.
      starts: [K] int64, the first row of each trajectory.
      lengths: [K] int64, in transitions.
      terminated: [K] bool, whether each ended by a terminal, not only a time limit.
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
    terminated: np.ndarray
    state_mean: np.ndarray
    state_std: np.ndarray
    dropped_tail: int
    source: str

    @classmethod
    def from_raw(
        cls, raw: RawData, *, source: str, split: str = "corl"
    ) -> "Trajectories":
        """Cut `raw` into trajectories; the flat arrays are views of it, not copies.

        Args:
          raw: the rows of a file.
          source: its name.
          split: "corl" ends a trajectory at each row with `terminals` or `timeouts`
            set, "timeouts" at each row with `timeouts` alone, for data that goes on
            past the goal.

        Raises:
          UserError: not one trajectory is complete, or returns are too large.
        """
        flags = raw.timeouts if split == "timeouts" else raw.terminals | raw.timeouts
        ends = np.flatnonzero(flags) + 1
        if len(ends) == 0:
            needed = "timeouts" if split == "timeouts" else "terminals or timeouts"
            raise UserError(
                f"{source}: no complete trajectory in {len(raw.rewards)} rows; "
                f"set {needed} in the last row of each"
            )
        starts = np.concatenate([[0], ends[:-1]])
        lengths = ends - starts
        kept = ends[-1]
        # Sums are float64, unlike CORL's, which lose digits over a million rows.
        states = column_statistics(raw.observations)
        returns_to_go = _all_returns_to_go(raw.rewards, ends, lengths)
        if not np.isfinite(returns_to_go[starts]).all():
            raise UserError(
                f"{source}: the rewards of a trajectory add up to more than float32 "
                "holds; scale them down in the file"
            )
        return cls(
            observations=_read_only(raw.observations[:kept]),
            actions=_read_only(raw.actions[:kept]),
            rewards=_read_only(raw.rewards[:kept]),
            returns_to_go=_read_only(returns_to_go),
            starts=_read_only(starts),
            lengths=_read_only(lengths),
            terminated=_read_only(raw.terminals[ends - 1]),
            state_mean=_read_only(states.mean.astype(np.float32)),
            state_std=_read_only((states.std + 1e-6).astype(np.float32)),
            dropped_tail=int(len(raw.rewards) - kept),
            source=source,
        )

    def hold_out(self, fraction: float) -> tuple["Trajectories", "Trajectories"]:
        """Return those to train on and those held out, at least one of each.

        Which are held out depends on K and `fraction` alone, so that runs with other
        seeds are measured on the same.

        Args:
          fraction: of the K trajectories, above 0 and below 1.

        Raises:
          UserError: there is but one trajectory.
        """
        k = self.num_trajectories
        if k == 1:
            raise UserError(
                f"{self.source}: with one trajectory none can be held out; use "
                "holdout_fraction=0"
            )
        count = min(max(1, round(fraction * k)), k - 1)
        held_out = np.zeros(k, bool)
        held_out[np.random.default_rng(0).permutation(k)[:count]] = True

        def part(chosen: np.ndarray) -> Trajectories:
            return replace(
                self,
                starts=_read_only(self.starts[chosen]),
                lengths=_read_only(self.lengths[chosen]),
                terminated=_read_only(self.terminated[chosen]),
            )

        return part(~held_out), part(held_out)

    @property
    def num_transitions(self) -> int:
        """M."""
        return int(self.lengths.sum())

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
                f"episode_len + 1 = {limit}; give episode_len={length}"
            )


def _read_only(array: np.ndarray) -> np.ndarray:
    """Return a view that can't be written to, and leave the caller's array alone."""
    view = array.view()
    view.setflags(write=False)
    return view


def _all_returns_to_go(
    rewards: np.ndarray, ends: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Return returns-to-go of all rows, on the disk if that is where the rewards are.

    Args:
      rewards: [rows], those after the last end are left out.
      ends: [K] the row after each trajectory's last.
      lengths: [K].
    """

    def parts() -> Iterator[np.ndarray]:
        k = 0
        while k < len(ends):
            start = ends[k] - lengths[k]
            # As many trajectories as fit, at least one.
            last = max(k + 1, np.searchsorted(ends, start + _ROWS_AT_ONCE, "right"))
            part = np.array(rewards[start : ends[last - 1]], np.float32)
            yield _returns_to_go(part, ends[k:last] - start, lengths[k:last])
            k = last

    if isinstance(rewards, np.memmap):
        # Nameless, so gone when the process is; written, so that a full disk is told.
        with (
            writing_to_cache(4 * ends[-1]) as folder,
            tempfile.TemporaryFile(dir=folder) as file,
        ):
            check_room(folder, 4 * ends[-1])
            for part in parts():
                file.write(part.data)
            file.flush()
            return np.memmap(file, np.float32, "r")
    returns = aligned_empty(ends[-1], np.float32)
    start = 0
    for part in parts():
        returns[start : start + len(part)] = part
        start += len(part)
    return returns


def _returns_to_go(
    rewards: np.ndarray, ends: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Return what CORL's discounted_cumsum gives for gamma 1, to the last bit.

    CORL adds in float32 from a trajectory's end to its start. So does this, for all
    trajectories at once: longest first, those with a row at the current distance from
    their end are always the first few.

    Args:
      rewards: [rows] float32; they become the returns.
      ends: [K] the row after each trajectory's last.
      lengths: [K].
    """
    last_rows = ends[np.argsort(-lengths)] - 1
    longer_than = len(lengths) - np.cumsum(np.bincount(lengths))  # [max length + 1]
    with np.errstate(over="ignore", invalid="ignore"):  # looked at by from_raw
        for distance in range(1, len(longer_than) - 1):
            rows = last_rows[: longer_than[distance]] - distance
            rewards[rows] += rewards[rows + 1]
    return rewards
