"""The Adroit hand on EnvPool, corrected to D4RL's rewards and ends.

Bodies, observations, resets and the scaling of actions are the same in both; two things
differ:

- Door, hammer and relocate are rewarded with -0.1 |palm - object| in D4RL. Releases of
  the code that EnvPool follows have +0.1 there. The sign is probed, not taken from a
  version number.
- D4RL ends pen's episode when the pen drops. EnvPool rewards that step with D4RL's -5
  but goes on.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version

import envpool
import numpy as np

from dt_jax.envs.envpool_env import EnvPoolEnv
from dt_jax.utils.errors import UserError

WEIGHT = 0.1  # of the palm's distance in D4RL's reward
_PEN_HEIGHT, _DROPPED = 26, 0.075  # index into the observation; metres

# Palm minus object [N, 3] from the observations [N, S] that the step returned.
_REACHES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "door": lambda o: o[:, 35:38],  # to the handle
    "hammer": lambda o: o[:, 33:36] - o[:, 36:39],
    "relocate": lambda o: o[:, 30:33],  # to the ball
}


class AdroitEnv(EnvPoolEnv):
    """N copies of one task of the Adroit hand, as D4RL scores them.

    Args:
      task: "pen", "door", "hammer" or "relocate".
      seeds: one int32 for each episode.
      max_episode_steps: the time limit; D4RL's is 100 for pen, 200 for the others.
      num_threads: of EnvPool; the usable cores where not given.

    Raises:
      UserError: how EnvPool's reward relates to D4RL's cannot be told.
    """

    def __init__(
        self,
        task: str,
        seeds: Sequence[int],
        max_episode_steps: int,
        num_threads: int | None = None,
    ):
        super().__init__(_env_id(task), seeds, max_episode_steps, num_threads)
        self._task = task
        self._excess = _excess() if task in _REACHES else 0.0

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        observations, rewards, ended = super()._advance(actions)
        if self._task == "pen":
            ended = ended | (observations[:, _PEN_HEIGHT] < _DROPPED)
        else:
            rewards = rewards - self._excess * palm_distance(self._task, observations)
        return observations, rewards, ended


def _env_id(task: str) -> str:
    return f"AdroitHand{task.capitalize()}-v1"


def palm_distance(task: str, observations: np.ndarray) -> np.ndarray:
    """Return |palm - object| [N] in metres, from what a step returned [N, S].

    Args:
      task: "door", "hammer" or "relocate".
      observations: [N, S].
    """
    return np.linalg.norm(_REACHES[task](observations), axis=-1)


@cache
def _excess() -> float:
    """Return how much of the palm's distance EnvPool rewards in excess of D4RL.

    Until the ball is lifted, relocate's reward is nothing but that distance.
    """
    pool = envpool.make_gymnasium(_env_id("relocate"), num_envs=1, seed=0)
    pool.reset()
    observations, rewards, *_ = pool.step(np.zeros((1, *pool.action_space.shape)))
    pool.close()
    return _excess_of(rewards[0], palm_distance("relocate", observations)[0])


def _excess_of(reward: float, distance: float) -> float:
    """Return the excess that relocate's `reward` at a palm's `distance` shows."""
    for weight in (WEIGHT, -WEIGHT):
        if np.isclose(reward, weight * distance, rtol=1e-3, atol=0):
            return weight + WEIGHT
    raise UserError(
        f"envpool {version('envpool')} rewards Adroit's relocate with {reward:.4f} at "
        f"{distance:.4f} m, and it is not known how that relates to D4RL's reward; "
        "install envpool 1.2.5"
    )
