"""Environments outside D4RL: spaces, seeds, ends of episodes and errors."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from playing import play

from dt_jax import envs
from dt_jax.envs.gymnasium_env import GymnasiumEnv
from dt_jax.envs.spaces import spec_from_spaces
from dt_jax.utils.errors import UserError
from dt_jax.utils.signals import StopRequest

STATE = Box(-np.inf, np.inf, (3,), np.float32)
LOW, HIGH = [-3.0, 0.0], [1.0, 0.5]
ACTION = Box(np.array(LOW, np.float32), np.array(HIGH, np.float32))


class Drift(gymnasium.Env):
    """The state is the sum of the actions; an episode has `seed % 7 + 1` steps.

    It ends by termination if that is even, by truncation if it is odd.
    """

    observation_space, action_space = STATE, ACTION
    built = 0

    def __init__(self, observation_space=STATE, action_space=ACTION):
        self.observation_space, self.action_space = observation_space, action_space
        Drift.built += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        assert seed is not None
        self.left = seed % 7 + 1
        self.truncates = self.left % 2 == 1
        self.state = self.np_random.normal(size=3).astype(np.float32)
        return self.state, {}

    def step(self, action):
        assert self.left > 0, "stepped after the end"
        assert action.dtype == np.float32
        assert self.action_space.contains(action), action
        self.left -= 1
        self.state = self.state + np.append(action, 1).astype(np.float32)
        ended = self.left == 0
        ends = ended and not self.truncates, ended and self.truncates
        return self.state, float(action[0]), *ends, {}


@pytest.fixture(autouse=True)
def _registered():
    gymnasium.register("Drift-v0", Drift)
    gymnasium.register("Limited-v0", Drift, max_episode_steps=4)
    yield
    del gymnasium.registry["Drift-v0"], gymnasium.registry["Limited-v0"]


def test_spec_follows_from_the_spaces():
    spec = envs.lookup("Drift-v0")
    assert (spec.observation_size, spec.action_size) == (3, 2)
    assert (spec.action_low, spec.action_high) == (tuple(LOW), tuple(HIGH))
    assert (spec.ref_min, spec.ref_max, spec.url) == (None, None, None)
    assert not spec.is_demo
    assert spec.max_episode_steps == 2**31 - 1
    assert envs.lookup("Limited-v0").max_episode_steps == 4


def test_reference_scores_of_the_user_take_precedence():
    spec = envs.lookup("Drift-v0", reference_scores=(-7.0, 3.0))
    assert (spec.ref_min, spec.ref_max) == (-7, 3)
    assert envs.lookup("hopper-demo").ref_max == pytest.approx(3234.3)
    assert envs.lookup("hopper-demo", "auto", (0.0, 1.0)).ref_max == 1


def test_episodes_match_a_plain_loop():
    """Each has its own seed and length."""
    seeds = [13, 2, 2, 6]
    rng = np.random.default_rng(0)
    actions = rng.uniform(-4, 4, (8, 4, 2))
    env = envs.make(envs.lookup("Drift-v0"), seeds)
    assert isinstance(env, GymnasiumEnv)
    observations, rewards, done = play(env, actions)
    assert observations.dtype == rewards.dtype == np.float32
    for n, seed in enumerate(seeds):
        single = gymnasium.make("Drift-v0")
        state, _ = single.reset(seed=seed)
        np.testing.assert_array_equal(observations[0, n], state)
        for t in range(seed % 7 + 1):
            clipped = np.clip(actions[t, n], LOW, HIGH).astype(np.float32)
            state, reward, terminated, truncated, _ = single.step(clipped)
            ended = terminated or truncated
            np.testing.assert_allclose(observations[t + 1, n], state, rtol=1e-6)
            assert rewards[t, n] == pytest.approx(reward)
            assert done[t, n] == ended
        assert ended
    again = play(env, actions)
    for got, want in zip(again, (observations, rewards, done), strict=True):
        np.testing.assert_array_equal(got, want)


def test_name_without_a_version_means_the_latest():
    """Gymnasium's warning about it is hidden; other warnings are errors here."""
    gymnasium.register("Drift-v1", Drift, max_episode_steps=3)
    spec = envs.lookup("Drift")
    assert (spec.name, spec.max_episode_steps) == ("Drift", 3)
    envs.make(spec, [6, 1]).host_reset()
    with pytest.warns(DeprecationWarning, match="Drift-v0 is out of date"):
        envs.lookup("Drift-v0")
    del gymnasium.registry["Drift-v1"]


def test_envpools_pendulum_matches_gymnasiums():
    """EnvPool takes precedence for names that both have."""
    spec = envs.lookup("Pendulum-v1")
    assert (spec.engine, spec.action_low, spec.action_high) == ("envpool", (-2,), (2,))
    assert spec.max_episode_steps == 200
    rng = np.random.default_rng(0)
    env, single = envs.make(spec, [1, 2]), gymnasium.make("Pendulum-v1")
    cos, sin, speed = env.host_reset()[1].astype(float)
    single.reset(seed=0)
    single.unwrapped.state = np.array([np.arctan2(sin, cos), speed])
    for _ in range(30):
        action = rng.uniform(-2, 2, 1).astype(np.float32)
        ours = env.host_step(np.stack([action, action]))
        observation, reward, *_ = single.step(action)
        np.testing.assert_allclose(ours.observations[1], observation, atol=1e-3)
        assert ours.rewards[1] == pytest.approx(reward, abs=1e-3)


def test_engine_can_be_chosen():
    assert envs.lookup("gymnasium:Pendulum-v1").engine == "gymnasium"
    assert envs.lookup("gymnasium:Pendulum-v1").max_episode_steps == 200


@pytest.mark.filterwarnings("ignore:.*out of date")
@pytest.mark.parametrize("env_name", ["Humanoid-v4", "HumanoidStandup-v4"])
def test_humanoids_observe_contact_forces(env_name):
    """EnvPool's do not."""
    env = envs.make(envs.lookup(env_name), [0])
    env.host_reset()
    steps = [env.host_step(np.zeros((1, 17))).observations for _ in range(60)]
    forces = np.concatenate(steps)[:, -84:]  # 6 numbers for each of 14 bodies
    assert np.abs(forces).max() > 1
    env.close()


def test_environment_that_the_user_registered_takes_precedence():
    """EnvPool has another one of this name."""
    gymnasium.register("Exit-v0", Drift, max_episode_steps=9)
    spec = envs.lookup("Exit-v0")
    del gymnasium.registry["Exit-v0"]
    assert (spec.engine, spec.max_episode_steps) == ("gymnasium", 9)
    with pytest.raises(UserError, match="observations of the kind"):
        envs.lookup("Exit-v0")


@pytest.mark.parametrize(
    ("env_name", "changes"),
    [
        ("Pendulum-v1", {"max_episode_steps": 50}),
        ("Pendulum-v1", {"max_episode_steps": 200, "kwargs": {"g": 1.0}}),
        ("MountainCarContinuous-v0", {"max_episode_steps": 5}),
    ],
)
def test_gymnasiums_own_class_with_other_arguments_takes_precedence(
    monkeypatch, env_name, changes
):
    spec = envs.lookup(env_name)
    own = gymnasium.registry[env_name]
    assert spec.engine == "envpool"
    changed = replace(own, **changes)
    monkeypatch.setitem(gymnasium.registry, env_name, changed)
    found = envs.lookup(env_name)
    assert found.engine == "gymnasium"
    assert found.max_episode_steps == changes["max_episode_steps"]


def test_environment_under_the_name_of_a_d4rl_dataset_is_named(monkeypatch):
    gymnasium.register("hopper-demo-v0", Drift)
    spec = gymnasium.registry.pop("hopper-demo-v0")
    monkeypatch.setitem(gymnasium.registry, "maze2d-umaze-v1", spec)
    with pytest.warns(UserWarning, match="yours .* env_name=gymnasium:maze2d-umaze-v1"):
        assert envs.lookup("maze2d-umaze-v1").engine == "maze2d"


def test_wrapper_that_learns_statistics_is_refused_unless_they_are_frozen(monkeypatch):
    def build(frozen=False):
        env = gymnasium.wrappers.NormalizeObservation(Drift())
        env.update_running_mean = not frozen
        return gymnasium.wrappers.ClipReward(env, -1, 1)

    spec = gymnasium.envs.registration.EnvSpec("Learns-v0", build)
    monkeypatch.setitem(gymnasium.registry, "Learns-v0", spec)
    message = "Learns-v0 .* under the wrapper NormalizeObservation, whose statistics"
    with pytest.raises(UserError, match=message):
        envs.lookup("Learns-v0")
    assert envs.lookup("Learns-v0", kwargs={"frozen": True}).observation_size == 3


@pytest.mark.parametrize(
    "kwargs", [{"seeds": 3}, {"env_id": "x"}, {"disable_env_checker": True}]
)
def test_arguments_may_have_any_name(monkeypatch, kwargs):
    class Named(Drift):
        def __init__(self, seeds=None, env_id=None):
            super().__init__()

    spec = gymnasium.envs.registration.EnvSpec("Named-v0", Named)
    monkeypatch.setitem(gymnasium.registry, "Named-v0", spec)
    env = envs.make(envs.lookup("Named-v0", kwargs=kwargs), [1, 2])
    assert env.host_reset().shape == (2, 3)


def test_time_limit_may_be_an_argument():
    assert envs.lookup("Limited-v0").max_episode_steps == 4
    spec = envs.lookup("Limited-v0", kwargs={"max_episode_steps": 2})
    assert spec.max_episode_steps == 2
    env = envs.make(spec, [6])
    env.host_reset()
    assert [env.host_step(np.zeros((1, 2))).done[0] for _ in range(2)] == [False, True]


def test_failing_close_is_a_warning(monkeypatch):
    """As of an environment that connects to its simulator in reset."""

    def close(self):
        raise AttributeError("client")

    monkeypatch.setattr(Drift, "close", close)
    with pytest.warns(UserWarning, match="failed to close: AttributeError"):
        assert envs.lookup("Drift-v0").observation_size == 3


@pytest.mark.parametrize(
    ("env_name", "message"),
    [
        ("Pendulm-v1", "nearest: Pendulum-v1"),
        ("hoper-medium-v2", "nearest: hopper-medium-v2"),
        ("qqqqqq", "unknown env_name 'qqqqqq'"),
        ("no_such_package:Drift-v0", "No module named 'no_such_package'"),
        ("FrozenLake-v1", "observations of the kind Discrete"),
        ("Pong-v5", r"observations of the kind Box of uint8, shape \(4, 84, 84\)"),
    ],
)
def test_unsupported_environment_is_refused_in_one_line(env_name, message):
    with pytest.raises(UserError, match=message):
        envs.lookup(env_name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_space": STATE}, "actions between .*inf"),
        ({"action_space": Box(1, 1, (2,))}, "greater, finite upper bound"),
        ({"action_space": Box(0, 9, (2,), int)}, "actions of the kind Box of int64"),
        ({"action_space": Discrete(3, start=1)}, "has actions from 1 on; only a Disc"),
        ({"action_space": MultiDiscrete([2, 3])}, "actions of the kind MultiDiscrete"),
        ({"observation_space": Discrete(3)}, "FlattenObservation makes one-hot"),
        ({"observation_space": Dict(a=STATE)}, "observations of the kind Dict"),
        ({"observation_space": Box(0, 1, (2, 2))}, r"shape \(2, 2\)"),
    ],
)
def test_unsupported_spaces_are_refused(changes, message):
    spaces = {"observation_space": STATE, "action_space": ACTION} | changes
    with pytest.raises(UserError, match=message):
        spec_from_spaces("X-v0", "gymnasium", **spaces, max_episode_steps=None)


def test_build_error_states_the_reason():
    def broken():
        raise ImportError("no module\nnamed wheels")

    gymnasium.register("Broken-v0", broken)
    with pytest.raises(UserError, match=r"Broken-v0 cannot be built: .* named wheels"):
        envs.lookup("Broken-v0")
    del gymnasium.registry["Broken-v0"]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            (np.zeros(3), "1.5", False, False),
            r"returned '1\.5' as the reward, expected",
        ),
        ((np.zeros(3), None, False, False), r"returned None as the reward"),
        ((np.zeros(3), [1, 2], False, False), r"returned \[1, 2\] as the reward"),
        ((np.zeros(3), 0.0, "False", False), r"returned 'False' as the end of an"),
        ((np.zeros(3), 0.0, False, None), r"returned None as the end of an episode"),
        ((["1", "2", "3"], 0.0, False, False), r"an observation of type <U1, expected"),
    ],
)
def test_other_types_than_numbers_are_refused(monkeypatch, step, message):
    env = envs.make(envs.lookup("Drift-v0"), [6])
    env.host_reset()
    monkeypatch.setattr(Drift, "step", lambda self, action: (*step, {}))
    with pytest.raises(UserError, match=message):
        env.host_step(np.zeros((1, 2)))


def test_numbers_of_any_library_are_accepted(monkeypatch):
    env = envs.make(envs.lookup("Drift-v0"), [6])
    env.host_reset()
    step = np.arange(3), jnp.ones(1), np.False_, 1, {}
    monkeypatch.setattr(Drift, "step", lambda self, action: step)
    result = env.host_step(np.zeros((1, 2)))
    assert (result.rewards.tolist(), result.done.tolist()) == ([1], [True])


def test_keyboard_interrupt_of_an_environment_is_an_error(monkeypatch):
    """Unless Python raises it for Ctrl-C."""

    def interrupt(self, **options):
        raise KeyboardInterrupt

    env = envs.make(envs.lookup("Drift-v0"), [6])
    monkeypatch.setattr(Drift, "reset", interrupt)
    # A process in the background starts with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with StopRequest(), pytest.raises(UserError, match="reset: KeyboardInterrupt"):
            env.host_reset()
        with pytest.raises(KeyboardInterrupt):
            env.host_reset()
    finally:
        signal.signal(signal.SIGINT, before)


def test_lookup_keeps_the_working_folder(monkeypatch, tmp_path):
    """Data is read after it."""
    monkeypatch.chdir(tmp_path)
    init = Drift.__init__
    monkeypatch.setattr(Drift, "__init__", lambda self: (os.chdir("/"), init(self))[1])
    envs.lookup("Drift-v0")
    assert Path.cwd() == tmp_path


def test_mujoco_messages_are_warnings_and_no_log_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = GymnasiumEnv("HalfCheetah-v5", [0], 1000)
    env.host_reset()
    env.envs[0].unwrapped.data.qvel[:] = 1e12
    with pytest.warns(UserWarning, match="MuJoCo: Nan, Inf or huge value"):
        env.host_step(np.zeros((1, 6)))
    assert not list(tmp_path.iterdir())
