"""The interface of every environment that can be rendered."""

from abc import ABC, abstractmethod

import numpy as np

from dt_jax.envs.base import HostEnv
from dt_jax.video.offscreen import Renderer

Size = tuple[int, int]  # width and height in pixels


class View(ABC):
    """An environment with one episode, and the frames that show it.

    Attributes:
      env: the environment; the caller steps it.
      step_seconds: the simulated time of a step.
      has_goal: whether a positive reward means that a goal was reached.
    """

    env: HostEnv
    step_seconds: float
    has_goal = False

    def start_episode(self, observation: np.ndarray) -> None:  # noqa: B027 - optional
        """Prepare for an episode, given its first observation [S]."""

    def track(self, observation: np.ndarray) -> None:  # noqa: B027 - optional
        """Take an observation [S] into account; call it after every step."""

    @abstractmethod
    def render(self, observation: np.ndarray) -> np.ndarray:
        """Return a frame of the present state, [height, width, 3] uint8.

        Args:
          observation: the latest one, [S].

        Raises:
          UserError: the environment's own renderer fails.
        """

    def close(self) -> None:
        """Close the environment, and release rendering resources."""
        self.env.close()


class ModelView(View):
    """A view that poses a MuJoCo model of its own as observed."""

    _renderer: Renderer

    def close(self) -> None:
        """Close the environment, and release the renderer's buffers."""
        super().close()
        self._renderer.close()
