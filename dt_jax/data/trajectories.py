"""The read-only store of trajectories that samplers and statistics read from.

It holds the result of CORL's load_d4rl_trajectories as flat arrays: trajectory k is the
rows starts[k] : starts[k] + lengths[k].
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dt_jax.data.arrays import aligned_empty, column_statistics
from dt_jax.data.cache import cache_space
from dt_jax.data.discrete import one_hot
from dt_jax.data.schema import RawData
from dt_jax.utils.errors import UserError

_BLOCK_ROWS = 1 << 18  # whose returns-to-go are computed together


@dataclass(frozen=True, eq=False)
class Trajectories:
    """K complete trajectories with M transitions in total; all arrays are read-only.

    A subset shares the flat arrays of the whole dataset.

    Attributes:
      observations: [rows, S] float32, as recorded; any number width if memory-mapped.
      actions: [rows, A], likewise.
      rewards: [rows], likewise.
      returns_to_go: [rows] float32, the sum of rewards until the trajectory's end,
        summed in float64.
      starts: [K] int64, the first row of each trajectory.
      lengths: [K] int64, in transitions.
      terminated: [K] bool, True where the trajectory ended by a terminal, False where
        only by a time limit or the end of recording.
      state_mean: [S] float32, over all rows of the file.
      state_std: [S] float32, over all rows of the file, plus 1e-6; 1 for a constant
        number, which may differ from its only value when the agent acts.
      constant: [S] bool, which observation numbers have one value in all rows.
      dropped_tail: number of rows after the last trajectory's end; as in CORL, they
        only count in the mean and the standard deviation.
      source: the file, for error messages.
      discrete: whether actions are one-hot choices.
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
    constant: np.ndarray
    dropped_tail: int
    source: str
    discrete: bool = False

    @classmethod
    def from_raw(
        cls,
        raw: RawData,
        *,
        source: str,
        split: str = "corl",
        num_choices: int | None = None,
    ) -> "Trajectories":
        """Split `raw` into trajectories; the flat arrays are views, not copies.

        Choices become one-hot actions.

        Args:
          raw: the rows of a file.
          source: the file's name.
          split: "corl" ends a trajectory at each row with `terminals` or `timeouts`
            set, "timeouts" only at rows with `timeouts` set, for data in which episodes
            continue after the goal.
          num_choices: A of discrete actions; None: as many as the data has.

        Raises:
          UserError: there is no complete trajectory, or a return exceeds float32.
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
        std = np.where(states.constant, 1, states.std + 1e-6)
        returns_to_go = _returns_to_go(raw.rewards, ends, lengths, source)
        actions = raw.actions[:kept]
        if discrete := actions.ndim == 1:
            actions = one_hot(actions, num_choices)
        return cls(
            observations=_read_only(raw.observations[:kept]),
            actions=_read_only(actions),
            rewards=_read_only(raw.rewards[:kept]),
            returns_to_go=_read_only(returns_to_go),
            starts=_read_only(starts),
            lengths=_read_only(lengths),
            terminated=_read_only(raw.terminals[ends - 1]),
            state_mean=_read_only(states.mean.astype(np.float32)),
            state_std=_read_only(std.astype(np.float32)),
            constant=_read_only(states.constant),
            dropped_tail=int(len(raw.rewards) - kept),
            source=source,
            discrete=discrete,
        )

    def hold_out(self, fraction: float) -> tuple["Trajectories", "Trajectories"]:
        """Return the trajectories to train on and the held-out ones, each not empty.

        The choice depends only on K and `fraction`, so that runs with different seeds
        are evaluated on the same trajectories.

        Args:
          fraction: share of the K trajectories to hold out, above 0 and below 1.

        Raises:
          UserError: there is only one trajectory.
        """
        k = self.num_trajectories
        if k == 1:
            raise UserError(
                f"{self.source}: the only trajectory cannot be held out; set "
                "holdout_fraction=0"
            )
        count = min(max(1, round(fraction * k)), k - 1)
        held_out = np.zeros(k, bool)
        held_out[np.random.default_rng(0).permutation(k)[:count]] = True
        return self.subset(~held_out), self.subset(held_out)

    def best(self, fraction: float) -> "Trajectories":
        """Return the trajectories of the highest returns, at least one, in order.

        Args:
          fraction: share of the K trajectories, above 0 and at most 1, rounded down.
        """
        count = max(1, int(fraction * self.num_trajectories))
        ranking = np.argsort(-self.episode_returns, kind="stable")
        chosen = np.zeros(self.num_trajectories, bool)
        chosen[ranking[:count]] = True
        return self.subset(chosen)

    def subset(self, chosen: np.ndarray) -> "Trajectories":
        """Return the trajectories where `chosen` [K] bool is True."""
        return replace(
            self,
            starts=_read_only(self.starts[chosen]),
            lengths=_read_only(self.lengths[chosen]),
            terminated=_read_only(self.terminated[chosen]),
        )

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

    def returns_within(self, steps: int) -> np.ndarray:
        """Return the sum of each trajectory's first `steps` rewards, [K] float64."""
        returns = self.episode_returns.astype(np.float64)
        longer = self.lengths > steps
        returns[longer] -= self.returns_to_go[self.starts[longer] + steps]
        return returns

    @property
    def nearly_constant(self) -> np.ndarray:
        """Which observation numbers vary by at most a few float32 steps, [S] bool."""
        steps = 4 * np.spacing(abs(self.state_mean))
        return self.constant | (self.state_std - np.float32(1e-6) <= steps)

    @property
    def sizes(self) -> tuple[int, int]:
        """S and A."""
        return self.observations.shape[1], self.actions.shape[1]

    def check_sizes(self, observation_size: int, action_size: int) -> None:
        """Raise a UserError unless S and A match the environment's."""
        sizes = self.sizes
        if sizes != (observation_size, action_size):
            raise UserError(
                f"{self.source}: observation size {sizes[0]} and action size "
                f"{sizes[1]} do not match the environment's {observation_size} and "
                f"{action_size}; set env_name to the environment of the recording"
            )

    def check_lengths(self, episode_len: int) -> None:
        """Raise a UserError if a trajectory has more than episode_len + 1 steps.

        The timestep embedding ends there. One step above the limit is allowed because
        D4RL's own antmaze files have it.
        """
        longest = int(self.lengths.argmax())
        length, limit = int(self.lengths[longest]), episode_len + 1
        if length > limit:
            raise UserError(
                f"{self.source}: trajectory {longest} has {length} steps, more than "
                f"episode_len + 1 = {limit}; set episode_len={length}"
            )


def _read_only(array: np.ndarray) -> np.ndarray:
    """Return a read-only view; the caller's array stays writeable."""
    view = array.view()
    view.setflags(write=False)
    return view


def _returns_to_go(
    rewards: np.ndarray, ends: np.ndarray, lengths: np.ndarray, source: str
) -> np.ndarray:
    """Return the returns-to-go [ends[-1]], memory-mapped if `rewards` [rows] are.

    `ends` [K] are the rows after each trajectory's last, `lengths` [K] their lengths.
    """

    def blocks() -> Iterator[np.ndarray]:
        k = 0
        while k < len(ends):
            start = ends[k] - lengths[k]
            # As many trajectories as fit, at least one.
            last = max(k + 1, np.searchsorted(ends, start + _BLOCK_ROWS, "right"))
            # Rounded to float32 first: memory-mapped files may be wider.
            block = rewards[start : ends[last - 1]].astype(np.float32, copy=False)
            block = block.astype(np.float64)
            _accumulate(block, ends[k:last] - start, lengths[k:last])
            with np.errstate(over="ignore"):
                returns = block.astype(np.float32)
            if not np.isfinite(returns).all():
                raise UserError(
                    f"{source}: the return of a trajectory exceeds float32; scale the "
                    "rewards down in the file"
                )
            yield returns
            k = last

    if isinstance(rewards, np.memmap):
        # An unnamed file, deleted with the process. It is written rather than mapped
        # for writing, so that a full disk is an error and not a bus error.
        with (
            cache_space(4 * ends[-1]) as folder,
            tempfile.TemporaryFile(dir=folder) as file,
        ):
            for block in blocks():
                file.write(block.data)
            file.flush()
            return np.memmap(file, np.float32, "r")
    returns, start = aligned_empty(ends[-1], np.float32), 0
    for block in blocks():
        returns[start : start + len(block)] = block
        start += len(block)
    return returns


def _accumulate(rewards: np.ndarray, ends: np.ndarray, lengths: np.ndarray) -> None:
    """Turn rewards into returns-to-go, from a trajectory's end to its start.

    For all trajectories at once: sorted by decreasing length, the ones that have a row
    at the current distance from their end always come first. Each adds on its own, so
    that its sums do not depend on the others. `rewards` [rows] float64 is changed in
    place.
    """
    last_rows = ends[np.argsort(-lengths)] - 1
    longer_than = len(lengths) - np.cumsum(np.bincount(lengths))  # [max length + 1]
    for distance in range(1, len(longer_than) - 1):
        rows = last_rows[: longer_than[distance]] - distance
        rewards[rows] += rewards[rows + 1]
