"""What Minari's recordings of D4RL's tasks have in common with D4RL's own data.

Which task a dataset is of follows from the environment that it was recorded in, not
from its name:

- Adroit's hand: D4RL's observations and actions. Door, hammer and relocate add
  s 0.1 |palm - object| to the reward, with s = -1 in D4RL and +1 in some releases of
  Gymnasium-Robotics; the data shows which, and gets D4RL's.
- PointMaze in D4RL's mazes: D4RL's physics in another frame, with changing goals.
  Observations and actions are turned into D4RL's frame, and rewarded at D4RL's goal.
- AntMaze: other physics. Only the observations are laid out as D4RL's.
"""

import re
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict

from dt_jax.data.minari import Episode, episodes
from dt_jax.data.registry import DatasetSpec, all_specs
from dt_jax.envs import mazes
from dt_jax.envs.adroit import WEIGHT, palm_distance
from dt_jax.envs.maze2d import at_goal
from dt_jax.envs.mazes import Maze
from dt_jax.utils.errors import UserError

Converted = tuple[np.ndarray, np.ndarray, np.ndarray]  # observations, actions, rewards

_ANT = 27  # numbers of the ant's observation; contact forces follow in some versions
_JOINTS = 27  # angles with which Adroit's observations begin
_STEP = 0.01  # seconds, of Adroit's environments
_PROBED = 200  # episodes at most whose rewards are looked at for the sign

# Arguments of an environment that leave physics and dense reward as they are; goals
# and ends are the mazes' own, and D4RL's take their place.
_HARMLESS = {"reward_type", "render_mode"}
_HARMLESS_MAZE = {"maze_map", "continuing_task", "reset_target", *_HARMLESS}


def scored_as(dataset: Any) -> DatasetSpec | None:
    """Return a D4RL dataset that a Minari one can be scored like, if there is any."""
    environment = _environment(dataset.env_spec)
    like = (spec for spec in all_specs().values() if spec.environment == environment)
    spec = next(like, None)
    if spec is None:
        return None
    # A recording may hold other observations than its environment gave.
    seen, done = dataset.observation_space, dataset.action_space
    if spec.maze and isinstance(seen, Dict):
        seen = seen.get("observation")
    sizes = (spec.observation_size,), (spec.action_size,)
    return spec if (getattr(seen, "shape", None), done.shape) == sizes else None


def converter(dataset: Any) -> Callable[[Episode], Converted]:
    """Return what brings the dataset's episodes into the form that is trained on.

    Raises:
      UserError: Adroit's rewards are no reward that is known, or its observations can't
        be used.
    """
    spec = scored_as(dataset)
    if spec is None:
        seen, env_spec = dataset.observation_space, dataset.env_spec
        flatten, _ = layout(seen, env_spec, dataset.env_name)
        return partial(_as_recorded, flatten)
    if spec.maze:
        return partial(_to_maze2d, mazes.maze2d(spec.maze))
    if spec.family == "pen":
        return partial(_as_recorded, _as_it_is)
    weight = _palm_weight(spec.family, dataset)
    return partial(_to_adroit, spec.family, weight + WEIGHT)


def layout(
    space: Any, env_spec: Any, name: str
) -> tuple[Callable[[Any], np.ndarray], Any]:
    """Return observations -> [..., S], and the space that these are of.

    Args:
      space: of the observations of a dataset or an environment.
      env_spec: the environment's, if there is one.
      name: what to call it in errors.

    Raises:
      UserError: they are dictionaries, and not those of a maze.
    """
    if not isinstance(space, Dict):
        return _as_it_is, space
    env_id = env_spec.id if env_spec else ""
    if "AntMaze_" in env_id and _size(space, "observation") >= _ANT:
        return _ant, Box(-np.inf, np.inf, (2 + _ANT,))
    if "PointMaze_" in env_id and _size(space, "observation"):
        return _point, space["observation"]
    raise UserError(
        f"{name} has observations of the kind Dict; of these, only those of AntMaze "
        "and PointMaze can be used, and else vectors: a Box with one axis"
    )


def _size(space: Dict, key: str) -> int:
    part = space.get(key)
    return part.shape[0] if isinstance(part, Box) and len(part.shape) == 1 else 0


def _as_it_is(observations: Any) -> np.ndarray:
    return observations


def _ant(observations: Any) -> np.ndarray:
    """Return x, y, then the other positions and the velocities, [..., 29]."""
    seen = observations["observation"][..., :_ANT]
    return np.concatenate([observations["achieved_goal"], seen], axis=-1)


def _point(observations: Any) -> np.ndarray:
    return observations["observation"]


def _environment(env_spec: Any) -> str | None:
    """Return which of D4RL's environments was recorded, "door" or "maze2d-umaze"."""
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


def _as_recorded(flatten: Callable[[Any], np.ndarray], episode: Episode) -> Converted:
    return flatten(episode.observations), episode.actions, episode.rewards


def _to_maze2d(maze: Maze, episode: Episode) -> Converted:
    """Turn an episode into D4RL's frame and reward each step that ends at its goal."""
    rows, columns = maze.free.shape
    x, y, x_speed, y_speed = _observed(episode).T
    right, up = episode.actions.T
    observations = np.stack(
        [rows / 2 - 0.7 - y, x + columns / 2 - 0.7, -y_speed, x_speed], axis=1
    )
    actions = np.stack([-up, right], axis=1)
    return observations, actions, at_goal(observations[1:, :2], maze)


def _observed(episode: Episode) -> np.ndarray:
    seen = episode.observations
    return seen["observation"] if isinstance(seen, dict) else seen


def _to_adroit(task: str, excess: float, episode: Episode) -> Converted:
    """Take from each reward what it has of the palm's distance in excess of D4RL's."""
    distances = palm_distance(task, episode.observations[1:])
    return (
        episode.observations,
        episode.actions,
        episode.rewards - excess * distances,
    )


def _palm_weight(task: str, dataset: Any) -> float:
    """Return the weight of the palm's distance in the recorded rewards, ±0.1.

    It is fitted, by least squares, to what the rest of the reward leaves unexplained.
    The rest depends on speeds, which are not observed but follow from the positions;
    so the fit is not exact, but good enough to tell one sign from the other.
    """
    found = [_terms(task, e) for e in islice(episodes(dataset), _PROBED)]
    features, left = map(np.concatenate, zip(*found, strict=True))
    fitted = np.linalg.lstsq(features, left)[0][0] if len(left) else 0.0
    if not 0.5 * WEIGHT < abs(fitted) < 2 * WEIGHT:
        raise UserError(
            f"{dataset.env_name}: the rewards show neither D4RL's -0.1 |palm - "
            f"object| nor the +0.1 of other releases, but {fitted:+.3f} in {len(left)} "
            f"steps; is this the reward of Adroit's {task}? More episodes may tell"
        )
    return np.copysign(WEIGHT, fitted)


def _terms(task: str, episode: Episode) -> tuple[np.ndarray, np.ndarray]:
    """Return the reward's unexplained part [K], and terms [K, F] to explain it by.

    The first term is the palm's distance. K of the T steps are used: those without
    bonuses, which would outweigh all else, and of them not the last.
    """
    observations, rewards = np.asarray(episode.observations), episode.rewards[:-1]
    after = observations[1:-1]
    distance = palm_distance(task, after)
    if task == "relocate":  # nothing else, as long as the ball lies on the table
        used = np.abs(rewards) < 1.1 * WEIGHT * distance
        return distance[used, None], rewards[used]
    moves = np.diff(observations[:, :_JOINTS], axis=0) / _STEP
    speed = np.linalg.norm(moves[1:] + moves[:-1], axis=1) / 2  # when the step ends
    if task == "door":  # -0.1 (angle - 1.57)² - 1e-5 |velocity|²
        angle = after[:, 28]
        used, left = angle < 0.2, rewards + 0.1 * (angle - 1.57) ** 2
        return np.stack([distance, speed**2], axis=1)[used], left[used]
    # Hammer: -|head - nail| - 10 |nail - goal| - 0.01 |velocity|. The hammer lies on
    # its side at first, and then its head is at this place beside its middle.
    lies = np.abs(after[:, 39:42] - [np.pi / 2, 0, 0]).max(axis=1) < 0.1
    head = after[:, 36:39] + [-0.2, 0.04, 0]
    left = rewards + np.linalg.norm(head - after[:, 42:45], axis=1)
    left += 10 * np.abs(0.091 - after[:, 26])
    used = lies & (np.abs(left) < 0.6)
    # Where the velocity changes within a step, differences of positions miss some.
    missed = np.square(np.diff(moves, axis=0)).sum(axis=1) / (speed + 1)
    return np.stack([distance, speed, missed], axis=1)[used], left[used]
