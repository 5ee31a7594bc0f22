import envpool
import numpy as np
import pytest
from playing import play

from dt_jax.envs import maze2d, mazes
from dt_jax.envs.maze2d import Maze2D

TIMESTEP, GEAR = 0.01, 100.0
# Euler with implicit damping: h f = (m + h) dv, for a sphere of 0.1 m and 1000 kg/m³.
INERTIA = 4 / 3 * np.pi * 0.1**3 * 1000 + TIMESTEP * 1.0


def random_actions(steps, n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (steps, n, 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "env_id"),
    [
        ("umaze", "PointMaze_UMaze-v3"),
        ("medium", "PointMaze_Medium-v3"),
        ("large", "PointMaze_Large-v3"),
    ],
)
def test_physics_match_envpools_pointmaze(name, env_id):
    maze, n, steps = mazes.maze2d(name), 4, 300
    top, left = np.array(maze.free.shape) / 2 - 0.7

    def in_d4rls_frame(result):
        x, y, vx, vy = result["observation"].T
        return np.stack([top - y, left + x, -vy, vx], axis=1)

    pool = envpool.make_gymnasium(
        env_id,
        num_envs=n,
        seed=0,
        num_threads=1,
        max_episode_steps=steps + 1,
        continuing_task=True,
        reset_target=False,
    )
    spec = maze2d.model_spec(maze)
    for geom in spec.geoms:  # as in EnvPool's model; MuJoCo adds them
        geom.margin = 0.002
    balls = maze2d.Points(spec.compile(), n, substeps=1)
    start = in_d4rls_frame(pool.reset()[0])
    balls.qpos[:], balls.qvel[:] = start[:, :2], start[:, 2:]
    actions = random_actions(steps, n)
    held = random_actions(steps // 20, n // 2).repeat(20, axis=0)
    actions[:, ::2] = held  # moves far enough to hit walls
    error, bounces = 0.0, 0
    for action in actions:
        before = balls.qvel.copy()
        balls.step(action)
        result = pool.step(np.stack([action[:, 1], -action[:, 0]], axis=1))[0]
        error = max(error, np.abs(balls.observations - in_d4rls_frame(result)).max())
        bounces += (np.abs(balls.qvel - before) > 1.5 * TIMESTEP * GEAR / INERTIA).sum()
    pool.close()
    assert error < 2e-6
    assert bounces > 0


def test_step_from_rest_matches_hand_computation():
    balls = maze2d.points(mazes.maze2d("umaze"), 2)
    balls.qpos[:] = [1.0, 2.0], [3.0, 1.0]
    balls.step(np.array([[1.0, 0.0], [0.0, -0.5]]))
    speed = TIMESTEP * GEAR / INERTIA  # 0.238 m/s
    far = TIMESTEP * speed
    np.testing.assert_allclose(
        balls.observations,
        [[1 + far, 2, speed, 0], [3, 1 - far / 2, 0, -speed / 2]],
        rtol=1e-12,
        atol=1e-12,
    )


def test_velocities_of_moving_balls_are_clipped_before_a_step():
    balls = maze2d.points(mazes.maze2d("umaze"), 2)
    balls.qpos[:], balls.qvel[:] = [1.0, 2.0], [9.0, -9.0]
    balls.step(np.zeros((2, 2)), np.array([True, False]))
    speed = 5 * (1 - TIMESTEP / INERTIA)
    moved = [1 + TIMESTEP * speed, 2 - TIMESTEP * speed, speed, -speed]
    np.testing.assert_allclose(balls.observations[0], moved, rtol=1e-12)
    np.testing.assert_array_equal(balls.observations[1], [1, 2, 9, -9])


@pytest.mark.parametrize("name", ["umaze", "medium", "large"])
def test_walls_stop_the_ball_where_d4rls_do(name):
    maze = mazes.maze2d(name)
    cells = np.array(maze.cells, float)
    for towards in ([1, 0], [-1, 0], [0, 1], [0, -1]):
        row, column = np.array(towards)[:, None] + np.array(maze.cells).T
        blocked = cells[~maze.free[row, column]]
        balls = maze2d.points(maze, len(blocked))
        balls.qpos[:] = blocked - 0.2
        for _ in range(150):
            balls.step(np.tile(np.array(towards, float), (len(blocked), 1)))
        # The ball touches the wall 0.4 m from the cell's centre. Its margin of 2 mm,
        # compressed by the push, stops it 1.4 mm before.
        off = (balls.qpos - (blocked - 0.2)) @ towards
        np.testing.assert_allclose(off, 0.4 - 0.0014, atol=3e-4)


def test_starts_are_distributed_as_in_d4rl():
    maze = mazes.maze2d("medium")
    starts = Maze2D("medium", range(1000), 600).host_reset()
    cells = np.rint(starts[:, :2])
    counts = np.unique(cells, axis=0, return_counts=True)[1]
    assert {(int(r), int(c)) for r, c in cells} == set(maze.cells)  # goal too
    assert counts.min() > 1000 / len(maze.cells) / 2
    off = starts[:, :2] - cells
    assert 0.095 < np.abs(off).max() <= 0.1 + 1e-6
    assert off.std() == pytest.approx(0.2 / 12**0.5, rel=0.05)
    assert starts[:, 2:].std() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(
    ("name", "goal"), [("umaze", (1, 1)), ("medium", (6, 6)), ("large", (7, 9))]
)
def test_goal_of_each_maze(name, goal):
    assert mazes.maze2d(name).goal == goal
    around = np.add(goal, [[0.5, 0], [0, -0.49], [0.36, 0.36], [0.51, 0]])
    reached = maze2d.at_goal(around, mazes.maze2d(name))
    np.testing.assert_array_equal(reached, [True, True, False, False])


def test_steps_that_end_at_the_goal_are_rewarded_until_the_time_limit():
    env = Maze2D("umaze", range(40), 50)
    observations, rewards, done = play(env, random_actions(50, 40))
    away = np.linalg.norm(observations[1:, :, :2] - (1, 1), axis=-1)
    np.testing.assert_array_equal(rewards, away <= 0.5)
    assert 0 < rewards.sum() < rewards.size
    np.testing.assert_array_equal(done, np.arange(50)[:, None].repeat(40, 1) == 49)
