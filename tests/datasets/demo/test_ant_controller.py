from pathlib import Path

import numpy as np
import pytest

from dt_jax.datasets.demo.ant_controller import AntController, ant_features


@pytest.fixture(scope="module")
def vectors():
    """The controller's reference output for 64 states of walking ants."""
    with np.load(Path(__file__).parent / "data/ant_controller.npz") as arrays:
        return dict(arrays)


def test_controller_matches_reference_output(vectors):
    observations, angle = vectors["observations"], vectors["goal_angle"]
    features, _ = ant_features(observations, angle)
    np.testing.assert_allclose(features, vectors["features"], atol=1e-5)
    actions = AntController().act(observations, angle)
    np.testing.assert_allclose(actions, vectors["actions"], atol=1e-5)


def test_controller_is_symmetric_under_quarter_turns(vectors):
    """An ant rotated together with its goal acts the same with the next legs."""
    observations, angle = vectors["observations"], vectors["goal_angle"]
    rotated = observations.copy()
    half = np.sqrt(0.5)  # the quaternion of a quarter turn about z
    w, x, y, z = observations[:, 3:7].T
    rotated[:, 3:7] = half * np.stack([w - z, x - y, y + x, z + w], axis=1)
    rotated[:, 15] = -observations[:, 16]  # world velocities rotate too
    rotated[:, 16] = observations[:, 15]
    actions = AntController().act(rotated, angle + np.pi / 2)
    np.testing.assert_allclose(actions, vectors["actions"], atol=1e-5)
