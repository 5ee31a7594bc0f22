import numpy as np
import pytest

from dt_jax import envs
from dt_jax.data.registry import lookup
from dt_jax.datasets.demo import maze2d
from dt_jax.datasets.demo.maze2d import WaypointController
from dt_jax.envs import mazes
from dt_jax.envs.maze2d import Maze2D, points
from dt_jax.rollout.episodes import run_episodes

GOALS = {"umaze": (1, 1), "medium": (6, 6), "large": (7, 9)}
LIMITS = {"umaze": 300, "medium": 600, "large": 800}


@pytest.fixture
def short_rollouts(monkeypatch):
    """Run more rollouts in parallel, which is faster."""
    monkeypatch.setattr(maze2d, "_ROLLOUT", 1000)


def collect(name, steps=8_000, seed=0):
    (episodes,) = maze2d.collect(lookup(f"maze2d-{name}-demo"), steps, seed, id)
    return episodes


@pytest.fixture(scope="module")
def episodes():
    """The trajectories of two rollouts in umaze."""
    return collect("umaze")


def test_rows_of_a_trajectory(episodes):
    lengths = [len(episode.rewards) for episode in episodes]
    assert 8_000 <= sum(lengths) < 8_000 + 2 * 301
    for episode in episodes[:20]:
        t = len(episode.rewards)
        qpos, qvel = episode.infos["qpos"], episode.infos["qvel"]
        assert qpos.dtype == qvel.dtype == np.float64
        assert qpos.shape == qvel.shape == episode.infos["goal"].shape == (t, 2)
        np.testing.assert_array_equal(
            episode.observations, np.hstack([qpos, qvel]).astype(np.float32)
        )
        assert episode.actions.shape == (t, 2)
        assert episode.actions.dtype == episode.rewards.dtype == np.float32
        assert np.abs(episode.actions).max() <= 1
        assert not episode.terminals.any()
        np.testing.assert_array_equal(episode.timeouts, np.arange(t) == t - 1)


def test_stored_actions_lead_from_each_stored_state_to_the_next(episodes):
    qpos, qvel = (
        np.concatenate([e.infos[key] for e in episodes]) for key in ("qpos", "qvel")
    )
    balls = points(mazes.maze2d("umaze"), len(qpos))
    balls.qpos[:], balls.qvel[:] = qpos, qvel
    balls.step(np.concatenate([e.actions for e in episodes]))
    # Each trajectory starts where the previous one ended, except between rollouts.
    off = (balls.qpos[:-1] != qpos[1:]) | (balls.qvel[:-1] != qvel[1:])
    (breaks,) = np.nonzero(off.any(axis=1))
    assert len(breaks) == 1
    assert breaks[0] + 1 in np.cumsum([len(e.rewards) for e in episodes])
    # Rewards are for the end of a step.
    distances = np.linalg.norm(balls.qpos - GOALS["umaze"], axis=1)
    rewards = np.concatenate([e.rewards for e in episodes])
    np.testing.assert_array_equal(rewards, distances <= 0.5)
    assert 0 < rewards.mean() < 0.5


@pytest.mark.parametrize("name", GOALS)
def test_trajectories_end_at_their_goal_or_the_limit(name, short_rollouts):
    spec = lookup(f"maze2d-{name}-demo")
    maze, seen, late = mazes.maze2d(name), set(), 0
    found = collect(name, steps=2000 * len(mazes.maze2d(name).cells), seed=1)
    for episode in found:
        goals = episode.infos["goal"]
        assert (goals == goals[0]).all()
        seen.add(tuple(goals[0].astype(int).tolist()))
        close = np.linalg.norm(episode.infos["qpos"] - goals, axis=1) < 0.1
        assert not close[:-1].any()
        assert len(close) <= spec.max_episode_steps + 1
        if not close[-1]:
            assert len(close) == spec.max_episode_steps + 1
            late += 1
    assert seen == set(maze.cells)
    assert late <= 0.01 * len(found)


def test_trajectory_at_the_limit_has_one_more_row(monkeypatch):
    monkeypatch.setattr(
        WaypointController, "arrived", lambda self, at: np.zeros(len(at), bool)
    )
    assert {len(e.rewards) for e in collect("umaze", 1000)} == {301}


def test_action_noise_is_minaris(monkeypatch):
    """Without a controller the action is only noise; clipping keeps its median."""
    monkeypatch.setattr(
        WaypointController, "act", lambda self, observed: 0 * observed[:, :2]
    )
    actions = np.concatenate([e.actions for e in collect("umaze", 4000)])
    assert abs(actions.mean()) < 0.03
    normal_median = 0.6745  # of the absolute value of a standard normal
    median = np.median(np.abs(actions))
    np.testing.assert_allclose(median / normal_median, 0.5, rtol=0.08)


def test_starts_differ_from_evaluation():
    starts = np.stack([e.observations[0] for e in collect("umaze", 4, seed=3)])
    evaluation = Maze2D("umaze", envs.episode_seeds(3, 100), 300).host_reset()
    assert not (starts[:, None] == evaluation).all(axis=-1).any()


def test_actions_follow_d4rls_formula_for_the_next_waypoint():
    maze = mazes.maze2d("umaze")
    controller = WaypointController(maze, 2, np.random.default_rng(0))
    controller.send(0, np.array([3.1, 1.0]), (3, 3))  # through (3, 2)
    controller.send(1, np.array([0.45, 0.8]), (1, 1))  # within (1, 1)
    np.testing.assert_array_equal(controller.goals, [[3, 3], [1, 1]])
    waypoint = controller._paths[0, 0].copy()
    assert (waypoint <= (3, 2)).all()
    assert (waypoint >= (2.8, 1.8)).all()
    at = np.array([[3.1, 1.0], [0.97, 1.02]])
    velocity = np.array([[0.4, -2.0], [0.1, 0.0]])
    actions = controller.act(np.hstack([at, velocity]))
    towards = 10 * (waypoint - at[0]) - velocity[0]
    np.testing.assert_allclose(actions[0], np.clip(towards, -1, 1), rtol=1e-12)
    np.testing.assert_allclose(actions[1], [0.3 - 0.1, -0.2], rtol=1e-12)
    # At the waypoint, the target changes to the goal one step later.
    at[0] = waypoint + 0.05
    still = controller.act(np.hstack([at, 0 * at]))[0]
    np.testing.assert_allclose(still, [-0.5, -0.5], rtol=1e-9)
    then = controller.act(np.hstack([at, 0 * at]))[0]
    np.testing.assert_allclose(then, np.clip(10 * (3 - at[0]), -1, 1), rtol=1e-9)


# Mean return ± standard error of 100 episodes, measured with another implementation.
@pytest.mark.parametrize(
    ("name", "mean", "error"),
    [("umaze", 225.0, 5.6), ("medium", 418.5, 8.2), ("large", 551.8, 11.8)],
)
def test_return_of_the_controller(name, mean, error):
    n, maze = 100, mazes.maze2d(name)
    env = Maze2D(name, envs.episode_seeds(0, n), LIMITS[name])
    controller = WaypointController(maze, n, np.random.default_rng(1))
    for i, start in enumerate(env.host_reset()):
        controller.send(i, start[:2], maze.goal)
    returns = [e.rewards.sum(dtype=np.float64) for e in run_episodes(env, controller)]
    ours = np.std(returns, ddof=1) / n**0.5
    assert abs(np.mean(returns) - mean) < 4 * np.hypot(ours, error)
    assert min(returns) > 0  # all reach the goal
