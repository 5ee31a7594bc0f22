"""Collection of hopper-demo and the other locomotion demos.

The bundled linear policies, found by augmented random search, have four skill levels,
each with an equal share of the steps. Mean return ± standard deviation of 128 episodes,
by level and by the standard deviation of the action noise:

              noise   level 1      level 2       level 3       level 4
halfcheetah   0       401 ± 4      1686 ± 23     2894 ± 29     3944 ± 633
              0.02    384 ± 5      1663 ± 149    2854 ± 254    3948 ± 522
              0.05    309 ± 14     1629 ± 33     2768 ± 365    3702 ± 779
              0.1     165 ± 27     1295 ± 413    1830 ± 968    3001 ± 1006
hopper        0       393 ± 5      1219 ± 4      2340 ± 307    3387 ± 12
              0.02    393 ± 5      1253 ± 81     2324 ± 387    3360 ± 164
              0.05    392 ± 6      1261 ± 167    2062 ± 523    3233 ± 431
              0.1     390 ± 7      1152 ± 186    1892 ± 562    2726 ± 842
walker2d      0       393 ± 4      510 ± 6       751 ± 7       2217 ± 186
              0.02    393 ± 4      510 ± 6       764 ± 42      2176 ± 264
              0.05    392 ± 5      510 ± 6       773 ± 92      1654 ± 831
              0.1     378 ± 53     392 ± 170     607 ± 237     454 ± 562

HalfCheetah's large deviations come from a few per cent of episodes in which it flips.
"""

from collections.abc import Callable
from contextlib import closing
from importlib.resources import as_file, files

import numpy as np

from dt_jax import envs
from dt_jax.data.registry import EnvSpec
from dt_jax.rollout.episodes import Episode, run_episodes

LEVELS = 4  # of skill, the worst first
ACTION_NOISE = 0.02  # the levels stay apart, and no two episodes are the same


class LinearPolicy:
    """Action = clip(W ((o - mean) / std) + noise, -1, 1).

    Args:
      family: the body, "hopper".
      level: skill level, 0 to LEVELS - 1.
      noise: standard deviation of the action noise.
      rng: draws the noise.
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
        """Return actions [N, A] for observations [N, S]; the rest is ignored."""
        actions = ((observations - self._mean) / self._std) @ self._weights.T
        actions += self._noise * self._rng.standard_normal(actions.shape, np.float32)
        return np.clip(actions, -1.0, 1.0)


def collect(
    spec: EnvSpec, steps: int, seed: int, advance: Callable[[int], None]
) -> list[list[Episode]]:
    """Return the episodes of each level, the worst first, with `steps` / 4 steps each.

    Only whole episodes are collected, so there are a few steps more.
    """
    levels = []
    for level in range(LEVELS):
        stream = (seed, level + 1)  # not 0: SeedSequence would ignore it
        noise = np.random.default_rng((*stream, 1))
        policy = LinearPolicy(spec.family, level, ACTION_NOISE, noise)
        episodes: list[Episode] = []
        missing = -(-steps // LEVELS)
        while missing > 0:
            # At least this many episodes are needed, so none is discarded.
            batch = -(-missing // spec.max_episode_steps)
            seeds = envs.episode_seeds(stream, len(episodes) + batch)[len(episodes) :]
            with closing(envs.make(spec, seeds)) as env:
                new = run_episodes(env, policy)
            collected = sum(len(episode.rewards) for episode in new)
            advance(min(collected, missing))
            missing -= collected
            episodes += new
        levels.append(episodes)
    return levels
