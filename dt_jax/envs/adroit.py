"""The Adroit hand on EnvPool, corrected to D4RL's rewards and terminations.

Bodies, observations, resets and action scaling are the same in both. Two things differ:

- Door, hammer and relocate have the reward term -0.1 |palm - object| in D4RL. Releases
  of the code that EnvPool follows have +0.1. The sign is probed, not inferred from a
  version number.
- D4RL ends an episode of pen when the pen drops. EnvPool gives D4RL's reward of -5 for
  that step but continues the episode.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version

import envpool
import numpy as np

from dt_jax.envs.envpool_env import EnvPoolEnv
from dt_jax.utils.errors import UserError

PALM_WEIGHT = 0.1  # of the palm's distance in D4RL's reward
_PEN_HEIGHT, _DROPPED = 26, 0.075  # index into the observation; metres

# Palm minus object [N, 3] from observations [N, S], for tasks with that reward term.
PALM_TO_OBJECT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "door": lambda o: o[:, 35:38],  # to the handle
    "hammer": lambda o: o[:, 33:36] - o[:, 36:39],
    "relocate": lambda o: o[:, 30:33],  # to the ball
}


class AdroitEnv(EnvPoolEnv):
    """N copies of one task of the Adroit hand, with D4RL's rewards.

    Args:
      task: "pen", "door", "hammer" or "relocate".
      seeds: one int32 per episode.
      max_episode_steps: the time limit; D4RL's is 100 for pen, 200 for the others.
      num_threads: of EnvPool; by default the usable cores.

    Raises:
      UserError: EnvPool's reward is not one that can be converted to D4RL's.
    """

    def __init__(
        self,
        task: str,
        seeds: Sequence[int],
        max_episode_steps: int,
        num_threads: int | None = None,
    ):
        super().__init__(envpool_id(task), seeds, max_episode_steps, num_threads)
        self._task = task
        self._excess = _excess() if task in PALM_TO_OBJECT else 0.0

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        observations, rewards, ended = super()._advance(actions)
        if self._task in PALM_TO_OBJECT:
            rewards = rewards - self._excess * palm_distance(self._task, observations)
        else:
            ended = ended | (observations[:, _PEN_HEIGHT] < _DROPPED)
        return observations, rewards, ended


def envpool_id(task: str) -> str:
    """Return EnvPool's name of a task."""
    return f"AdroitHand{task.capitalize()}-v1"


def palm_distance(task: str, observations: np.ndarray) -> np.ndarray:
    """Return |palm - object| [N] in metres.

    Args:
      task: "door", "hammer" or "relocate".
      observations: [N, S], as a step returned them.
    """
    return np.linalg.norm(PALM_TO_OBJECT[task](observations), axis=-1)


@cache
def _excess() -> float:
    """Return EnvPool's weight of the palm's distance minus D4RL's.

    Relocate's reward is only that distance until the ball is lifted.
    """
    pool = envpool.make_gymnasium(envpool_id("relocate"), num_envs=1, seed=0)
    pool.reset()
    observations, rewards, *_ = pool.step(np.zeros((1, *pool.action_space.shape)))
    pool.close()
    weight = round(float(rewards[0] / palm_distance("relocate", observations)[0]), 3)
    if abs(weight) != PALM_WEIGHT:
        raise UserError(
            f"envpool {version('envpool')}: expected a reward of ±{PALM_WEIGHT} x "
            f"distance in Adroit's relocate, got {weight} x; install envpool 1.2.5"
        )
    return weight + PALM_WEIGHT
