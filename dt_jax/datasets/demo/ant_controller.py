"""The ant's bundled linear controller, which walks at 1.6 m/s towards a goal."""

from importlib.resources import as_file, files

import numpy as np

_SIGNS = np.array([1, 1, 1, -1, 1, -1, 1, 1])  # makes all ankles bend the same way
# D4RL's actuator of each joint (hip 1, ankle 1, hip 2, ...).
_ACTUATOR_OF_JOINT = np.array([2, 3, 4, 5, 6, 7, 0, 1])


class AntController:
    """Action = clip(W ((features - mean) / std), -1, 1), mapped back to the ant's legs.

    The features use the ant's fourfold symmetry: they are expressed in a frame rotated
    by k quarter turns, so that the goal lies within 45 degrees of the first leg.
    """

    def __init__(self) -> None:
        resource = files("dt_jax.datasets.demo") / "policies" / "ant.npz"
        with as_file(resource) as path, np.load(path) as arrays:
            self._weights = arrays["W"].astype(np.float64)  # [8, 29]
            self._mean = arrays["mean"].astype(np.float64)  # [29]
            self._std = arrays["std"].astype(np.float64)  # [29]

    def act(self, observations: np.ndarray, goal_angle: np.ndarray) -> np.ndarray:
        """Return actions [N, 8] that walk towards a goal.

        Args:
          observations: [N, 29], see dt_jax.envs.antmaze.
          goal_angle: [N] direction of the goal in the world, radians from the x axis.
        """
        features, quarter_turns = ant_features(observations, goal_angle)
        scaled = (features - self._mean) / self._std
        scaled[:, -1] = 1  # the bias
        by_leg = np.clip(scaled @ self._weights.T, -1, 1)  # of the rotated ant
        joints = _shift_legs(by_leg, -quarter_turns) * _SIGNS
        actions = np.empty_like(joints)
        actions[:, _ACTUATOR_OF_JOINT] = joints
        return actions


def ant_features(
    observations: np.ndarray, goal_angle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the controller's features [N, 29] and each ant's quarter turns [N].

    Args:
      observations: [N, 29], see dt_jax.envs.antmaze.
      goal_angle: [N] direction of the goal in the world, radians from the x axis.
    """
    height, quaternion = observations[:, 2:3], observations[:, 3:7]
    joint_angles, joint_speeds = observations[:, 7:15], observations[:, 21:29]
    velocity, spin = observations[:, 15:18], observations[:, 18:21]  # world, body
    w, x, y, z = quaternion.T
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    relative = goal_angle - yaw
    k = np.round(relative / (np.pi / 2)).astype(int)
    off = _wrap(relative - k * np.pi / 2)
    heading = yaw + k * np.pi / 2
    up = np.stack(
        [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1
    )
    features = [
        height,
        _rotate(up, heading),
        np.stack([np.sin(off), np.cos(off)], axis=1),
        _rotate(velocity, heading),
        _rotate(spin, k * np.pi / 2),
        _shift_legs(joint_angles * _SIGNS, k),
        _shift_legs(joint_speeds * _SIGNS, k),
        np.ones_like(height),
    ]
    return np.concatenate(features, axis=1), k


def _wrap(angle: np.ndarray) -> np.ndarray:
    """Return angles in radians, wrapped to ±π."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _rotate(vectors: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return vectors [N, 3] in a frame rotated by `angle` [N] about z."""
    x, y, z = vectors.T
    sine, cosine = np.sin(angle), np.cos(angle)
    return np.stack([cosine * x + sine * y, cosine * y - sine * x, z], axis=1)


def _shift_legs(joints: np.ndarray, quarter_turns: np.ndarray) -> np.ndarray:
    """Return joints [N, 8] with those of leg i + k at the position of leg i."""
    legs = (np.arange(4) + quarter_turns[:, None]) % 4  # [N, 4]
    by_leg = joints.reshape(-1, 4, 2)
    return np.take_along_axis(by_leg, legs[..., None], axis=1).reshape(-1, 8)
