"""Environments that are played in parts, by one program."""

from collections.abc import Sequence

import numpy as np
from jax.experimental import io_callback

from dt_jax.envs.base import EnvState, HostEnv
from dt_jax.types import Array, Step


class InParts:
    """Environments of the same sizes, each with episodes of its own.

    The program that plays in one of them plays in all: the state says in which.
    """

    def __init__(self, parts: Sequence[HostEnv]):
        self.parts = parts

    def reset(self, i: int) -> tuple[EnvState, Array]:
        """Start the episodes of part `i` from their seeds."""
        return np.int32(i), self.parts[i].host_reset()

    def step(self, state: EnvState, actions: Array) -> tuple[EnvState, Step]:
        """Advance a part's episodes by one action [N, A], from a compiled program."""
        shapes = self.parts[0].all_over()
        return state, io_callback(self._step, shapes, state, actions, ordered=True)

    def check(self) -> None:
        """Raise what went wrong in one of them."""
        for part in self.parts:
            part.check()

    def _step(self, i: Array, actions: Array) -> Step:
        return self.parts[int(i)].callback(actions)
