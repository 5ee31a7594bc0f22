"""The units of a network: normalised states, actions within bounds, scaled rewards."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dt_jax.types import Array
from dt_jax.utils.errors import UserError


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Maps between the data's and the environment's units and the network's.

    A network's parameters mean nothing without it, so every checkpoint holds it.

    Attributes:
      state_mean: [S] float32, the state that is 0 to the network.
      state_std: [S] float32, positive; the network's 1 in the environment's units.
      action_center: [A] float32, the action that is 0 to the network.
      action_scale: [A] float32, positive; the network's 1 in the environment's units.
      reward_scale: factor from rewards and returns to the network's.
      discrete: whether actions are one-hot choices, which keep their units.
    """

    state_mean: np.ndarray
    state_std: np.ndarray
    action_center: np.ndarray
    action_scale: np.ndarray
    reward_scale: float = 1.0
    discrete: bool = False

    @property
    def observation_size(self) -> int:
        """S."""
        return len(self.state_mean)

    @property
    def action_size(self) -> int:
        """A."""
        return len(self.action_center)

    @property
    def action_kind(self) -> str:
        """The word for messages."""
        return "discrete" if self.discrete else "continuous"

    def normalize_states(self, observations: Array) -> Array:
        """Map observations [N, S] to the network's states, in their own dtype."""
        dtype = observations.dtype
        states = observations - self.state_mean[None].astype(dtype)
        return states / self.state_std[None].astype(dtype)

    def to_environment(self, actions: Array) -> Array:
        """Map the network's actions [N, A] to the environment's.

        Center 0 and scale 1, as in all of D4RL, change no bit.
        """
        dtype = actions.dtype
        center = self.action_center[None].astype(dtype)
        return center + self.action_scale[None].astype(dtype) * actions

    def same_inputs(self, other: "Normalizer") -> bool:
        """Return whether states and actions have the same units in both."""
        names = "state_mean", "state_std", "action_center", "action_scale"
        return all(np.array_equal(getattr(self, x), getattr(other, x)) for x in names)

    def to_record(self) -> dict[str, Any]:
        """Return the values as JSON has them."""
        return {
            key: value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in vars(self).items()
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Normalizer":
        """Return what `to_record` has written.

        Raises:
          UserError: it is something else.
        """
        try:
            arrays = {
                key: np.asarray(value, np.float32)
                for key, value in record.items()
                if key not in ("reward_scale", "discrete")
            }
            normalizer = cls(
                **arrays,
                reward_scale=float(record["reward_scale"]),
                discrete=bool(record.get("discrete", False)),  # older versions lack it
            )
            states, actions = normalizer.observation_size, normalizer.action_size
            sizes = [(states,), (states,), (actions,), (actions,)]
            if [array.shape for array in arrays.values()] != sizes:
                raise ValueError("its arrays have other sizes")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"the normaliser is not valid: {error}") from None
        return normalizer
