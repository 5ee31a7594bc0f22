from pathlib import Path

import numpy as np
import pytest

from dt_jax.datasets.demo.ant_controller import AntController, ant_features
from dt_jax.envs import antmaze, mazes


@pytest.fixture(scope="module")
def vectors():
    """What the controller's author computed for 64 states of walking ants."""
    with np.load(Path(__file__).parent / "data/ant_controller.npz") as arrays:
        return dict(arrays)


def test_against_its_authors_numbers(vectors):
    observations, angle = vectors["observations"], vectors["goal_angle"]
    features, _ = ant_features(observations, angle)
    np.testing.assert_allclose(features, vectors["features"], atol=1e-5)
    actions = AntController().act(observations, angle)
    np.testing.assert_allclose(actions, vectors["actions"], atol=1e-5)


def test_an_ant_turned_by_a_quarter_acts_as_before_with_the_next_legs(vectors):
    """Turned together with its goal, and seen from its next leg, it is the same ant."""
    observations, angle = vectors["observations"], vectors["goal_angle"]
    turned = observations.copy()
    half = np.sqrt(0.5)  # the quaternion of a quarter turn about z
    w, x, y, z = observations[:, 3:7].T
    turned[:, 3:7] = half * np.stack([w - z, x - y, y + x, z + w], axis=1)
    turned[:, 15] = -observations[:, 16]  # velocities of the world turn with it
    turned[:, 16] = observations[:, 15]
    actions = AntController().act(turned, angle + np.pi / 2)
    np.testing.assert_allclose(actions, vectors["actions"], atol=1e-5)


def test_it_walks_to_where_it_is_told():
    n = 8
    bodies = antmaze.ants(mazes.antmaze("medium"), n)
    for i in range(n):
        antmaze.place(bodies, i, np.random.default_rng(i), np.zeros(2))
    controller = AntController()
    goal = np.array([4.0, 4.0])  # the start lies in a free square of 2 x 2 cells
    nearest = np.full(n, np.inf)
    for _ in range(80):
        x, y = (goal - bodies.qpos[:, :2]).T
        bodies.step(controller.act(bodies.observations, np.arctan2(y, x)))
        distance = np.linalg.norm(bodies.qpos[:, :2] - goal, axis=1)
        nearest = np.minimum(nearest, distance)
    assert (nearest < 0.5).all()
