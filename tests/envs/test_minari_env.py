"""Conversion of Minari's recordings to D4RL's form, and their environments."""

import json
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from functools import cache

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.wrappers import (
    NormalizeObservation,
    NormalizeReward,
    RescaleAction,
)
from gymnasium.wrappers.utils import RunningMeanStd
from playing import play
from recording import record

from dt_jax import envs
from dt_jax.data.minari import Episode, open_dataset
from dt_jax.data.registry import lookup
from dt_jax.envs import mazes, minari_d4rl, minari_env
from dt_jax.envs.adroit import AdroitEnv, palm_distance
from dt_jax.envs.maze2d import Maze2D, points
from dt_jax.envs.minari_env import MinariEnv
from dt_jax.utils.errors import UserError


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


class RecordReward(minari.StepDataCallback):
    """Records the reward `change(observation, reward)`."""

    change = staticmethod(lambda observation, reward: reward)

    def __call__(self, env, obs, info, action=None, rew=None, **ends):
        rew = None if rew is None else self.change(obs, rew)
        return super().__call__(env, obs, info, action, rew, **ends)


def with_reward(change):
    """Return collector arguments that replace the environment's reward."""
    callback = type("Changed", (RecordReward,), {"change": staticmethod(change)})
    return {"step_data_callback": callback}


def before_and_after(episodes):
    """Return the observations before and after each step, [M, S] each."""
    before = [o for observations, _ in episodes for o in observations[:-1]]
    after = [o for observations, _ in episodes for o in observations[1:]]
    return np.array(before), np.array(after)


def edit_metadata(dataset_id, change):
    """Apply `change` to the metadata of a dataset."""
    path = open_dataset(f"minari:{dataset_id}").storage.data_path / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


@cache
def installed_sign():
    """Return the sign of the palm's distance in Gymnasium-Robotics' rewards."""
    env = gymnasium.make("AdroitHandRelocate-v1")
    env.reset(seed=0)
    return np.sign(env.step(np.zeros(30, np.float32))[1])


@pytest.mark.parametrize("task", ["door", "hammer", "relocate"])
def test_rewards_of_either_sign_are_converted_to_d4rls(task):
    env_id, sign = f"AdroitHand{task.capitalize()}-v1", installed_sign()

    def other_release(observation, reward):
        return reward - sign * 0.2 * palm_distance(task, observation[None])[0]

    episodes = record(env_id, "this-v0", (80, 70))
    record(env_id, "other-v0", (80, 70), collector=with_reward(other_release))
    before, after = before_and_after(episodes)
    rewards = np.concatenate([rewards for _, rewards in episodes])
    expected = rewards - (sign * 0.1 + 0.1) * palm_distance(task, after)
    for name in ("minari:this-v0", "minari:other-v0"):
        raw = minari_env.read(name)
        np.testing.assert_allclose(raw.rewards, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(raw.observations, before.astype(np.float32))


def test_unrecognised_adroit_reward_is_refused(tmp_path):
    collector = with_reward(lambda observation, reward: 0.3)
    record("AdroitHandDoor-v1", "free-v0", (30,), collector=collector)
    (tmp_path / "free-v0").rename(tmp_path / "mine-v0")
    with pytest.raises(UserError, match=r"^minari:mine-v0: expected rewards with D4RL"):
        minari_env.read("minari:mine-v0")


@pytest.mark.parametrize(
    ("env_id", "d4rl", "engine"),
    [
        ("AdroitHandPen-v1", "pen-human-v1", AdroitEnv),
        ("PointMaze_Medium-v3", "maze2d-medium-v1", Maze2D),
    ],
)
def test_d4rls_tasks_have_d4rls_environment_and_scores(env_id, d4rl, engine):
    record(env_id, "D4RL/task/test-v0", (3,))
    spec = envs.lookup("minari:D4RL/task/test-v0")
    assert spec.label == spec.name
    assert spec == replace(lookup(d4rl), name=spec.name, url=None)
    assert isinstance(envs.make(spec, [0]), engine)
    assert envs.lookup(spec.name, "auto", (0.0, 1.0)).ref_max == 1


MAZES = pytest.mark.parametrize(
    ("env_id", "name"),
    [
        ("PointMaze_UMaze-v3", "umaze"),
        ("PointMaze_Medium_Diverse_GR-v3", "medium"),
        ("PointMaze_Large-v3", "large"),
    ],
)


@MAZES
def test_pointmaze_is_converted_to_maze2d(env_id, name):
    """From each state, D4RL's ball moves as recorded and hits the same walls."""
    lengths = (150, 80)
    record(env_id, "maze-v0", lengths)
    raw, maze = minari_env.read("minari:maze-v0"), mazes.maze2d(name)
    assert raw.observations.shape == (230, 4)
    ball = points(maze, 230)
    ball.qpos[:], ball.qvel[:] = raw.observations[:, :2], raw.observations[:, 2:]
    ball.step(raw.actions)
    cells = raw.observations[:, :2] + 0.2
    rows, columns = np.rint(cells).astype(int).T
    assert maze.free[rows, columns].all()
    assert np.ptp(cells, axis=0).max() > 1  # the ball moves
    free = np.abs(cells - np.rint(cells)).max(axis=1) < 0.3  # away from walls
    followed = np.setdiff1d(np.flatnonzero(free), np.cumsum(lengths) - 1)
    assert len(followed) > 40
    error = ball.observations[followed] - raw.observations[followed + 1]
    assert np.abs(error).max() < 1e-5


@MAZES
def test_every_cell_is_converted_to_d4rls_frame(env_id, name):
    record(env_id, "maze-v0", (1,))
    convert = minari_d4rl.converter(open_dataset("minari:maze-v0"))
    maze = mazes.maze2d(name)
    grid = gymnasium.make(env_id).unwrapped.maze
    centers = np.array([grid.cell_rowcol_to_xy(cell) for cell in maze.cells])
    observations = {"observation": np.concatenate([centers, 0 * centers], axis=1)}
    zeros = np.zeros(len(centers) - 1)
    actions = np.zeros((len(zeros), 2))
    converted, _, _ = convert(Episode(observations, actions, zeros, zeros > 0))
    np.testing.assert_allclose(converted[:, :2], np.array(maze.cells) - 0.2)


def test_pointmaze_is_rewarded_at_d4rls_goal():
    """D4RL's goal is (1, 1), the start here; the recorded goal is elsewhere."""
    start_at_goal = [
        [1, 1, 1, 1, 1],
        [1, "r", 0, "g", 1],
        [1, 1, 1, 0, 1],
        [1, 0, 0, 0, 1],
        [1, 1, 1, 1, 1],
    ]
    env = gymnasium.make("PointMaze_UMaze-v3", maze_map=start_at_goal)
    episodes = record(env, "goal-v0", (120, 120))
    raw = minari_env.read("minari:goal-v0")
    _, after = before_and_after(
        [([o["observation"] for o in each], rewards) for each, rewards in episodes]
    )
    x, y = after[:, :2].T  # Gymnasium's frame: the centre is 0, y runs up
    distances = np.hypot(2.5 - 0.7 - y - 1, x + 2.5 - 0.7 - 1)
    np.testing.assert_array_equal(raw.rewards, distances <= 0.5)
    assert 0 < raw.rewards.mean() < 1
    assert np.array_equal(np.flatnonzero(raw.timeouts), [119, 239])


def other_maze():
    walls = np.ones((5, 5), int)
    walls[1, 1:4] = 0
    return gymnasium.make("PointMaze_UMaze-v3", maze_map=walls.tolist())


@pytest.mark.parametrize(
    ("env", "sizes"),
    [
        ("Hopper-v5", (11, 3)),
        ("AdroitHandDoorSparse-v1", (39, 28)),
        ("PointMaze_UMazeDense-v3", (4, 2)),
        ("PointMaze_Open-v3", (4, 2)),
        (other_maze, (4, 2)),
        ("AntMaze_UMaze-v4", (29, 8)),
        ("AntMaze_UMaze-v5", (29, 8)),  # with contact forces
    ],
)
def test_other_datasets_have_the_recorded_environment(env, sizes):
    """Replaying the recorded actions repeats observations and rewards."""
    env = env() if callable(env) else env
    episodes = record(env, "else-v0", (12, 9))
    spec = envs.lookup("minari:else-v0")
    assert (spec.observation_size, spec.action_size) == sizes
    assert spec.label == "minari:else-v0 (not D4RL-comparable)"
    assert (spec.ref_min, spec.ref_max) == (None, None)
    raw = minari_env.read(spec.name)
    np.testing.assert_array_equal(
        raw.rewards, np.concatenate([r for _, r in episodes]).astype("f4")
    )
    evaluated = envs.make(spec, [1, 0])
    assert isinstance(evaluated, MinariEnv)
    assert evaluated.max_episode_steps == spec.max_episode_steps
    actions = np.zeros((9, 2, sizes[1]))
    actions[:, 1], actions[:, 0] = raw.actions[:9], raw.actions[12:]
    observations, rewards, _ = play(evaluated, actions)
    np.testing.assert_array_equal(observations[:-1, 0], raw.observations[12:])
    np.testing.assert_array_equal(observations[:, 1], raw.observations[:10])
    np.testing.assert_array_equal(rewards[:, 0], raw.rewards[12:])


@pytest.mark.parametrize("version", ["v4", "v5"])
def test_antmaze_has_d4rls_layout(version):
    """The full state: x, y, z, the quaternion, 8 joints, and their velocities."""
    states = []

    class KeepState(minari.StepDataCallback):
        def __call__(self, env, **step):
            data = env.unwrapped.ant_env.data
            states.append(np.concatenate([data.qpos, data.qvel]))
            return super().__call__(env, **step)

    collector = {"step_data_callback": KeepState}
    record(f"AntMaze_UMaze-{version}", "ant-v0", (20,), collector=collector)
    raw = minari_env.read("minari:ant-v0")
    np.testing.assert_array_equal(raw.observations, np.float32(states[:-1]))


class MyStatistics(gymnasium.Wrapper, gymnasium.utils.RecordConstructorArgs):
    """Learns statistics as Gymnasium's wrappers do."""

    def __init__(self, env):
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        self.statistics = RunningMeanStd()


@pytest.mark.parametrize("wrapper", [NormalizeObservation, NormalizeReward])
def test_data_recorded_under_learnt_statistics_is_refused(wrapper):
    plain = gymnasium.make("Hopper-v5")
    record(wrapper(plain), "wrapped-v0", (3,))
    record(wrapper(plain), "data-v0", (3,), eval_env=gymnasium.spec("Hopper-v5"))
    record("Hopper-v5", "played-v0", (3,), eval_env=wrapper(plain).spec)
    for name in ("wrapped", "data", "played"):
        spec = envs.lookup(f"minari:{name}-v0")
        message = f"{name}-v0 was recorded, or .* {wrapper.__name__}, whose stat.*=0"
        with pytest.raises(UserError, match=message):
            envs.make(spec, [0])
        minari_env.read(spec.name)  # may be trained on


def test_own_wrapper_that_learns_statistics_is_refused():
    record(MyStatistics(gymnasium.make("Hopper-v5")), "mine-v0", (3,))
    with pytest.raises(UserError, match="the wrapper MyStatistics, whose statistics"):
        envs.make(envs.lookup("minari:mine-v0"), [0])


def test_datasets_evaluation_environment_and_scores_are_used():
    evaluation = deepcopy(gymnasium.spec("Hopper-v5"))
    evaluation.max_episode_steps = 7
    evaluation.kwargs = {"healthy_reward": 50.0}
    scores = {"ref_min_score": -2.0, "ref_max_score": 8.0}
    record("Hopper-v5", "eval-v0", (3,), eval_env=evaluation, **scores)
    spec = envs.lookup("minari:eval-v0")
    assert (spec.ref_min, spec.ref_max, spec.max_episode_steps) == (-2, 8, 7)
    env = envs.make(spec, [0])
    env.host_reset()
    assert env.host_step(np.zeros((1, 3))).rewards > 40
    assert envs.lookup(spec.name, "auto", (0.0, 1.0)).ref_max == 1


def test_dictionaries_of_other_tasks_are_refused(tmp_path):
    """A renamed maze dataset, because Fetch does not run on MuJoCo 4."""

    def rename(metadata):
        metadata["env_spec"] = metadata["env_spec"].replace("PointMaze_UMaze", "Fetch")

    record("PointMaze_UMaze-v3", "fetch-v0", (2,))
    edit_metadata("fetch-v0", rename)
    (tmp_path / "fetch-v0").rename(tmp_path / "mine-v0")
    for use in (envs.lookup, minari_env.read):
        with pytest.raises(UserError, match=r"^minari:mine-v0 has .* Dict; .* AntMaze"):
            use("minari:mine-v0")


def test_discrete_actions_are_read_as_choices_and_played():
    record("CartPole-v1", "cart-v0", (3,))
    spec = envs.lookup("minari:cart-v0")
    assert (spec.discrete, spec.action_size) == (True, 2)
    raw = minari_env.read(spec.name)
    recorded = [episode.actions for episode in open_dataset(spec.name)]
    np.testing.assert_array_equal(raw.actions, np.concatenate(recorded))
    env = MinariEnv(spec.name, [0], spec.max_episode_steps)
    first = env.host_reset()
    step = env.host_step(np.eye(2)[[1]])
    assert step.observations[0, 1] > first[0, 1]  # pushed to the right


class Halved(minari.StepDataCallback):
    def __call__(self, env, obs, **step):
        return super().__call__(env, obs=obs[:5], **step)


def test_recorded_observations_must_match_the_environment():
    space = Box(-np.inf, np.inf, (5,))
    collector = {"step_data_callback": Halved, "observation_space": space}
    record("AdroitHandDoor-v1", "half-v0", (3,), collector=collector)
    spec = envs.lookup("minari:half-v0")
    assert (spec.engine, spec.observation_size) == ("minari", 5)
    assert minari_env.read(spec.name).observations.shape == (3, 5)
    with pytest.raises(UserError, match=r"shape \(5,\), .* shape \(39,\).* eval_ep"):
        envs.make(spec, [0])


def test_evaluation_environments_dictionaries_must_match():
    point = gymnasium.make("PointMaze_UMaze-v3")
    record("AntMaze_UMaze-v4", "ant-v0", (2,), eval_env=point)
    with pytest.raises(UserError, match=r"shape \(29,\), .* shape \(4,\)"):
        envs.make(envs.lookup("minari:ant-v0"), [0])


class Doubled(minari.StepDataCallback):
    def __call__(self, env, obs, info, action=None, **step):
        action = None if action is None else np.repeat(action, 2)
        return super().__call__(env, obs=obs, info=info, action=action, **step)


def doubled(low, high):
    """Return collector arguments that record each action twice."""
    space = Box(low, high, (2,))
    return {"step_data_callback": Doubled, "action_space": space}


@pytest.mark.parametrize(
    ("env", "collector", "more", "message"),
    [
        (
            "Pendulum-v1",
            doubled(-2, 2),
            {"eval_env": "Pendulum-v1"},
            r"Box\(-2.0, 2.0, \(2,\), .* Box\(-2.0, 2.0, \(1,\)",
        ),
        (
            "Pendulum-v1",
            {},
            {"eval_env": RescaleAction(gymnasium.make("Pendulum-v1"), -1, 2)},
            r"Box\(-2.*Box\(-1.0, 2.0",
        ),
        ("CartPole-v1", doubled(0, 1), {}, r"Box\(0.0, 1.0, .*has Discrete\(2\)"),
    ],
)
def test_recorded_actions_must_match_the_environment(env, collector, more, message):
    record(env, "act-v0", (3,), collector=collector, **more)
    spec = envs.lookup("minari:act-v0")
    with pytest.raises(UserError, match=f"has actions of {message}.* eval_episodes=0"):
        envs.make(spec, [0])


def test_bounds_are_compared_in_float32():
    space = Box(-0.4, 0.4, (17,), np.float64)
    record("Humanoid-v5", "double-v0", (2,), collector={"action_space": space})
    assert isinstance(envs.make(envs.lookup("minari:double-v0"), [0]), MinariEnv)


def test_dataset_without_an_environment_can_be_read_but_not_evaluated():
    record("Hopper-v5", "unnamed-v0", (3,))
    edit_metadata("unnamed-v0", lambda metadata: metadata.pop("env_spec"))
    spec = envs.lookup("minari:unnamed-v0")
    assert minari_env.read(spec.name).observations.shape == (3, 11)
    with pytest.raises(UserError, match="does not name its environment"):
        envs.make(spec, [0])


def test_build_error_states_the_reason():
    def break_env_id(metadata):
        metadata["env_spec"] = metadata["env_spec"].replace("hopper_v5", "skipper")

    record("Hopper-v5", "lost-v0", (3,))
    edit_metadata("lost-v0", break_env_id)
    with pytest.raises(UserError, match=r"lost-v0 cannot be built: .*skipper"):
        envs.make(envs.lookup("minari:lost-v0"), [0])


def test_notices_of_third_party_packages_are_hidden():
    record("AntMaze_UMaze-v4", "ant-v0", (2,))
    code = (
        "from dt_jax import envs\n"
        "spec = envs.lookup('minari:ant-v0')\n"
        "envs.make(spec, [0]).host_reset()\n"
        "envs.minari_env.read(spec.name)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == result.stderr == ""
