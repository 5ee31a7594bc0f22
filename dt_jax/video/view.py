"""What every environment that can be drawn offers."""

from abc import ABC, abstractmethod

import numpy as np

from dt_jax.envs.base import HostEnv

Size = tuple[int, int]  # width and height in pixels


class View(ABC):
    """An environment with one episode, and what is seen of it.

    Attributes:
      env: step this one.
      step_seconds: how long a step takes in the simulated world.
      has_goal: whether a reward means that a goal has been reached.
    """

    env: HostEnv
    step_seconds: float
    has_goal = False

    def begin(self, observation: np.ndarray) -> None:  # noqa: B027 - most need it not
        """Take note of an episode's first observation [S]."""

    def follow(self, observation: np.ndarray) -> None:  # noqa: B027
        """Take note of what a step led to, [S], also where nothing is drawn."""

    @abstractmethod
    def frame(self, observation: np.ndarray) -> np.ndarray:
        """Return what is seen now, [height, width, 3] uint8.

        Args:
          observation: the newest one, [S].

        Raises:
          UserError: an environment that draws itself can't.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what drawing took."""
