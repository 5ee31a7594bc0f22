"""An installed gym: old and new environments, and D4RL's normalised score."""

import importlib.util
import subprocess
import sys
import warnings

import numpy as np
import pytest

from dt_jax import envs
from dt_jax.data.registry import normalized_score
from dt_jax.envs import gym_env
from dt_jax.utils.errors import UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gym's deprecation notice
    gym = pytest.importorskip("gym")

SPACE = gym.spaces.Box(-1, 1, (2,), np.float32)


class Old(gym.Env):
    """The API before gym 0.26: `seed`, a bare observation, and four values."""

    observation_space = action_space = SPACE

    def seed(self, seed=None):
        self.rng = np.random.default_rng(seed)
        self.horizon = 2 + seed % 5

    def reset(self):
        self.left = self.horizon
        self.state = self.rng.normal(size=2)
        return self.state

    def step(self, action):
        self.left -= 1
        self.state = self.state + action
        return self.state, float(self.state.sum()), self.left == 0, {"steps": 1}

    def get_normalized_score(self, score):
        return (score + 20.272305) / (3234.3 + 20.272305)


class New(Old):
    """The API of gym 0.26: reset(seed=...) returns an info, step five values.

    Episodes of an odd length end by truncation.
    """

    seed = None

    def reset(self, *, seed=None, options=None):
        Old.seed(self, seed)
        return Old.reset(self), {}

    def step(self, action):
        observation, reward, done, info = Old.step(self, action)
        truncates = self.horizon % 2 == 1
        return observation, reward, done and not truncates, done and truncates, info

    def get_normalized_score(self, score):
        raise ValueError("Reference score not provided for env")


class Unseeded(Old):
    seed = None
    rng, horizon = np.random.default_rng(0), 3


ENVIRONMENTS = {"Old-v0": Old, "New-v0": New, "Unseeded-v0": Unseeded}


@pytest.fixture(autouse=True)
def _registered():
    for env_id, kind in ENVIRONMENTS.items():
        gym.register(env_id, kind, max_episode_steps=5)
    gym.register("hopper-medium-v2", New)
    yield
    for env_id in (*ENVIRONMENTS, "hopper-medium-v2"):
        del gym.envs.registry[env_id]


@pytest.mark.parametrize("env_id", ["Old-v0", "New-v0"])
def test_episodes_match_a_plain_loop(env_id):
    spec = envs.lookup(env_id, "gym")
    assert (spec.observation_size, spec.action_size) == (2, 2)
    assert (spec.action_low, spec.max_episode_steps) == ((-1, -1), 5)
    seeds = [1, 9, 2, 1]
    env = envs.make(spec, seeds)
    actions = np.random.default_rng(0).uniform(-2, 2, (5, 4, 2))
    for _ in range(2):  # a reset repeats the episodes
        observations = env.host_reset()
        loops = [Old() for _ in seeds]
        for n, seed in enumerate(seeds):
            loops[n].seed(seed)
            np.testing.assert_allclose(observations[n], loops[n].reset(), rtol=1e-6)
        running = np.ones(4, bool)
        for t, action in enumerate(np.clip(actions, -1, 1)):
            step = env.host_step(actions[t])
            for n in np.flatnonzero(running):
                state, reward, done, _ = loops[n].step(action[n].astype(np.float32))
                np.testing.assert_allclose(step.observations[n], state, rtol=1e-5)
                assert step.rewards[n] == pytest.approx(reward, rel=1e-5)
                running[n] = not (done or t == 4)
                assert step.done[n] != running[n]
        assert not running.any()


def test_environment_without_a_seed_argument_is_not_seeded():
    env = envs.make(envs.lookup("Unseeded-v0", "gym"), [1, 2])
    observations = env.host_reset()
    assert (observations[0] != observations[1]).any()


def test_reference_scores_come_from_get_normalized_score():
    spec = envs.lookup("Old-v0", "gym")
    assert (spec.ref_min, spec.ref_max) == pytest.approx((-20.272305, 3234.3))
    assert normalized_score(spec, 1000) == pytest.approx(
        100 * Old().get_normalized_score(1000)
    )
    assert envs.lookup("New-v0", "gym").ref_min is None
    assert envs.lookup("Old-v0", "gym", (0.0, 1.0)).ref_max == 1


def test_d4rl_dataset_keeps_its_url_and_reference_scores():
    spec = envs.lookup("hopper-medium-v2", "gym")
    known = envs.lookup("hopper-medium-v2")
    for key in ("url", "ref_min", "ref_max"):
        assert getattr(spec, key) == getattr(known, key)
    assert (spec.engine, spec.env_id) == ("gym", "hopper-medium-v2")
    assert (spec.environment, spec.observation_size) == (known.environment, 2)


def test_gyms_pendulum_works_with_numpy_2():
    """gym 0.26's checker and spaces fail with it."""
    env = envs.make(envs.lookup("Pendulum-v1", "gym"), [1, 2])
    first = env.host_reset()
    assert env.host_step(np.array([[5.0], [-5.0]])).observations.shape == (2, 3)
    assert (first[0] != first[1]).any()


def test_unknown_name_is_refused():
    with pytest.raises(UserError, match=r"gym cannot make 'maze2d-umaze-v1': .* d4rl"):
        envs.lookup("maze2d-umaze-v1", "gym")


def test_error_is_one_line_although_gym_prints_a_notice():
    program = (
        "from dt_jax import envs; from dt_jax.cli.common import run_command; "
        "run_command(lambda: envs.lookup('Nothing-v0', 'gym'), '-c')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "gym cannot make 'Nothing-v0'" in done.stderr


def test_missing_gym_names_the_extra(monkeypatch):
    monkeypatch.setattr(gym_env, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=r"pip install 'dt_jax\[gym\]'"):
        envs.lookup("Pendulum-v1", "gym")


def test_d4rl_is_imported_if_installed(monkeypatch, tmp_path):
    """The import registers its environments."""
    (tmp_path / "d4rl.py").write_text(
        "import gym\ngym.register('Fake-v0', gym.spec('New-v0').entry_point)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert envs.lookup("Fake-v0", "gym").action_size == 2
    del sys.modules["d4rl"], gym.envs.registry["Fake-v0"]
    (tmp_path / "d4rl.py").write_text("raise OSError('no\\nmujoco')\n")
    importlib.invalidate_caches()
    with pytest.raises(
        UserError, match=r"d4rl is installed but cannot be .*: no mujoco"
    ):
        envs.lookup("New-v0", "gym")
