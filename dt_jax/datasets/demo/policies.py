"""The bundled behaviour policies: linear, found by augmented random search."""

from importlib.resources import as_file, files

import numpy as np

LEVELS = 4  # of quality, the worst first


class LinearPolicy:
    """Action = clip(W ((o - mean) / std) + noise, -1, 1).

    Args:
      family: the body, "hopper".
      level: its quality, 0 to LEVELS - 1.
      noise: standard deviation of the action noise.
      rng: where the noise comes from.
    """

    def __init__(self, family: str, level: int, noise: float, rng: np.random.Generator):
        resource = files("dt_jax.datasets.demo") / "policies" / f"{family}.npz"
        with as_file(resource) as path, np.load(path) as arrays:
            self._weights = arrays["W"][level]  # [A, S]
            self._mean, self._std = arrays["mean"][level], arrays["std"][level]  # [S]
        self._noise, self._rng = noise, rng

    def act(
        self,
        observations: np.ndarray,
        rewards: np.ndarray | None = None,
        done: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return actions [N, A] for observations [N, S]; the rest is not looked at."""
        actions = ((observations - self._mean) / self._std) @ self._weights.T
        actions += self._noise * self._rng.standard_normal(actions.shape, np.float32)
        return np.clip(actions, -1.0, 1.0)
