"""Conversion of Minari's recordings of D4RL's tasks to D4RL's form.

The task follows from the environment that a dataset was recorded in, not from its name:

- Adroit: the same observations and actions. Door, hammer and relocate add
  s 0.1 |palm - object| to the reward, with s = -1 in D4RL and s = +1 in some releases
  of Gymnasium-Robotics. The data shows which; rewards are converted to D4RL's.
- PointMaze in D4RL's mazes: D4RL's physics in another frame, with changing goals.
  Observations and actions are converted to D4RL's frame; the reward is D4RL's, at
  D4RL's goal.
- AntMaze: different physics. Only the layout of the observations becomes D4RL's.
"""

import re
from collections.abc import Callable
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict

from dt_jax.data.minari import Episode, episodes
from dt_jax.data.registry import EnvSpec, all_specs
from dt_jax.envs import mazes
from dt_jax.envs.adroit import PALM_TO_OBJECT, PALM_WEIGHT, palm_distance
from dt_jax.envs.maze2d import at_goal
from dt_jax.envs.mazes import Maze
from dt_jax.utils.errors import UserError

Converted = tuple[np.ndarray, np.ndarray, np.ndarray]  # observations, actions, rewards

_ANT = 27  # size of the ant's observation; some versions append contact forces
_JOINTS = 27  # number of joint angles at the start of an Adroit observation
_STEP = 0.01  # seconds per step in Adroit
_PROBED = 200  # maximum number of episodes used to find the reward's sign

# Arguments of an environment that change neither physics nor dense reward. Goals and
# ends of the mazes are replaced by D4RL's.
_HARMLESS = {"reward_type", "render_mode"}
_HARMLESS_MAZE = {"maze_map", "continuing_task", "reset_target", *_HARMLESS}


def matching_spec(dataset: Any) -> EnvSpec | None:
    """Return a D4RL dataset's spec with the environment of a Minari one, if any."""
    environment = _d4rl_environment(dataset.env_spec)
    specs = (spec for spec in all_specs().values() if spec.environment == environment)
    spec = next(specs, None)
    if spec is None:
        return None
    # The recorded observations may differ from those of the environment.
    observations, actions = dataset.observation_space, dataset.action_space
    if spec.maze and isinstance(observations, Dict):
        observations = observations.get("observation")
    sizes = (spec.observation_size,), (spec.action_size,)
    recorded = getattr(observations, "shape", None), actions.shape
    return spec if recorded == sizes else None


def converter(dataset: Any) -> Callable[[Episode], Converted]:
    """Return the function that converts the dataset's episodes to training data.

    Raises:
      UserError: Adroit's reward is not recognised, or the observations are not
        supported.
    """
    spec = matching_spec(dataset)
    if spec is not None and spec.maze:
        return partial(_to_maze2d, mazes.maze2d(spec.maze))
    if spec is not None and (task := spec.env_id) in PALM_TO_OBJECT:
        return partial(_to_adroit, task, _palm_weight(task, dataset) + PALM_WEIGHT)
    space, env_spec = dataset.observation_space, dataset.env_spec
    flatten, _ = flattener(space, env_spec, dataset.env_name)
    return lambda e: (flatten(e.observations), e.actions, e.rewards)


def flattener(
    space: Any, env_spec: Any, name: str
) -> tuple[Callable[[Any], np.ndarray], Any]:
    """Return a function from observations to [..., S], and the space of its results.

    Args:
      space: the observation space of a dataset or an environment.
      env_spec: Gymnasium's spec of the environment, or None.
      name: what error messages call it.

    Raises:
      UserError: the observations are dictionaries that are not a maze's.
    """
    if not isinstance(space, Dict):
        return lambda observations: observations, space
    env_id = env_spec.id if env_spec else ""
    if "AntMaze_" in env_id and _size(space, "observation") >= _ANT:
        return _flatten_ant, Box(-np.inf, np.inf, (2 + _ANT,))
    if "PointMaze_" in env_id and _size(space, "observation"):
        return itemgetter("observation"), space["observation"]
    raise UserError(
        f"{name} has observations of the kind Dict; these are supported for AntMaze "
        "and PointMaze only, otherwise use vectors: a Box with one axis"
    )


def _size(space: Dict, key: str) -> int:
    part = space.get(key)
    return part.shape[0] if isinstance(part, Box) and len(part.shape) == 1 else 0


def _flatten_ant(observations: Any) -> np.ndarray:
    """Return x, y, then the other positions and the velocities, [..., 29]."""
    body = observations["observation"][..., :_ANT]
    return np.concatenate([observations["achieved_goal"], body], axis=-1)


def _d4rl_environment(env_spec: Any) -> str | None:
    """Return D4RL's environment with that spec, "door" or "maze2d-umaze", if any."""
    if env_spec is None or env_spec.additional_wrappers:
        return None
    name, arguments = env_spec.id, env_spec.kwargs
    dense = arguments.get("reward_type", "dense") == "dense"
    hand = re.search("AdroitHand([A-Z][a-z]+)", name)
    if hand and dense and arguments.keys() <= _HARMLESS:
        return hand[1].lower()
    sparse = arguments.get("reward_type", "sparse") == "sparse"
    if "PointMaze_" in name and sparse and arguments.keys() <= _HARMLESS_MAZE:
        walls = np.array(arguments.get("maze_map", []), object) == 1
        for maze in ("umaze", "medium", "large"):
            if np.array_equal(walls, ~mazes.maze2d(maze).free):
                return f"maze2d-{maze}"
    return None


def _to_maze2d(maze: Maze, episode: Episode) -> Converted:
    """Convert an episode to D4RL's frame; reward the steps that end at its goal."""
    observations = episode.observations
    if isinstance(observations, dict):
        observations = observations["observation"]
    rows, columns = maze.free.shape
    x, y, x_speed, y_speed = observations.T
    right, up = episode.actions.T
    observations = np.stack(
        [rows / 2 - 0.7 - y, x + columns / 2 - 0.7, -y_speed, x_speed], axis=1
    )
    actions = np.stack([-up, right], axis=1)
    return observations, actions, at_goal(observations[1:, :2], maze)


def _to_adroit(task: str, excess: float, episode: Episode) -> Converted:
    """Subtract `excess` times the palm's distance, so that rewards are D4RL's."""
    distances = palm_distance(task, episode.observations[1:])
    rewards = episode.rewards - excess * distances
    return episode.observations, episode.actions, rewards


def _palm_weight(task: str, dataset: Any) -> float:
    """Return the weight of the palm's distance in the recorded rewards, ±0.1.

    A least-squares fit to what the other terms of the reward leave unexplained. Those
    depend on velocities, which are estimated from positions: the fit is inexact, but
    good enough to tell the signs apart.
    """
    terms = [_reward_terms(task, e) for e in islice(episodes(dataset), _PROBED)]
    features, residual = map(np.concatenate, zip(*terms, strict=True))
    fitted = np.linalg.lstsq(features, residual)[0][0] if len(residual) else 0.0
    if not 0.5 * PALM_WEIGHT < abs(fitted) < 2 * PALM_WEIGHT:
        raise UserError(
            f"{dataset.env_name}: expected rewards with D4RL's -0.1 |palm - object| or "
            f"the +0.1 of other releases, got {fitted:+.3f} in {len(residual)} steps; "
            f"check that this is the reward of Adroit's {task}, or add episodes"
        )
    return np.copysign(PALM_WEIGHT, fitted)


def _reward_terms(task: str, episode: Episode) -> tuple[np.ndarray, np.ndarray]:
    """Return features [K, F] and the reward's residual [K] to fit them to.

    The first feature is the palm's distance. K of the T steps are used: not the last
    one, and none with a bonus, which would dominate the fit.
    """
    observations, rewards = np.asarray(episode.observations), episode.rewards[:-1]
    after = observations[1:-1]
    distance = palm_distance(task, after)
    if task == "relocate":  # the only term while the ball lies on the table
        used = np.abs(rewards) < 1.1 * PALM_WEIGHT * distance
        return distance[used, None], rewards[used]
    moves = np.diff(observations[:, :_JOINTS], axis=0) / _STEP
    speed = np.linalg.norm(moves[1:] + moves[:-1], axis=1) / 2  # at the step's end
    if task == "door":  # -0.1 (angle - 1.57)² - 1e-5 |velocity|²
        angle = after[:, 28]
        used, residual = angle < 0.2, rewards + 0.1 * (angle - 1.57) ** 2
        return np.stack([distance, speed**2], axis=1)[used], residual[used]
    # Hammer: -|head - nail| - 10 |nail - goal| - 0.01 |velocity|. Initially the hammer
    # lies on its side, with its head at this offset from its centre.
    lies = np.abs(after[:, 39:42] - [np.pi / 2, 0, 0]).max(axis=1) < 0.1
    head = after[:, 36:39] + [-0.2, 0.04, 0]
    residual = rewards + np.linalg.norm(head - after[:, 42:45], axis=1)
    residual += 10 * np.abs(0.091 - after[:, 26])
    used = lies & (np.abs(residual) < 0.6)
    # Finite differences underestimate a velocity that changes within a step.
    change = np.square(np.diff(moves, axis=0)).sum(axis=1) / (speed + 1)
    return np.stack([distance, speed, change], axis=1)[used], residual[used]
