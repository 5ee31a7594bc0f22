"""Environments are closed by whoever builds them; no more exist than the user wants."""

import json
import os

import gymnasium
import jax
import numpy as np
import pytest
from command import start
from gymnasium.spaces import Box
from helpers import changed
from small_agent import large_params, normalizer, small_agent

from dt_jax import envs
from dt_jax.config import default_config
from dt_jax.config.load import override, validate
from dt_jax.evaluation.evaluate import evaluate
from dt_jax.evaluation.evaluator import Evaluator
from dt_jax.training.dry_run import dry_run
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError
from dt_jax.video import make_view
from dt_jax.video.play import play, render_episodes

TARGETS = (30.0, 5.5)


class Counted(gymnasium.Env):
    """Knows how many of it are open; the reward depends on seed, step and actions."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    observation_space = Box(-np.inf, np.inf, (11,), np.float32)
    action_space = Box(-1, 1, (3,), np.float32)
    opened, most, fails = None, 0, None  # reset by the fixture

    def __init__(self, render_mode=None, gain=1.0):
        if Counted.fails == len(Counted.opened):
            raise RuntimeError("the licence has expired")
        self.render_mode, self.gain = render_mode, gain
        Counted.opened.append(self)
        Counted.most = max(Counted.most, len(Counted.opened))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.normal(size=11).astype("f4"), {}

    def step(self, action):
        self.time += 1
        reward = self.gain * float(action.sum() + self.np_random.normal())
        if self.fails == "step" and self.time == 3:
            raise RuntimeError("the simulator is gone")
        done = self.time == 6
        return self.np_random.normal(size=11).astype("f4"), reward, done, False, {}

    def render(self):
        return np.zeros((64, 64, 3), np.uint8)

    def close(self):
        Counted.opened.remove(self)


@pytest.fixture(autouse=True)
def _registered():
    gymnasium.register("Counted-v0", Counted, max_episode_steps=40)
    Counted.opened, Counted.most, Counted.fails = [], 0, None
    yield
    del gymnasium.registry["Counted-v0"]
    assert Counted.opened == []


@pytest.fixture
def config(small_config):
    return changed(small_config, env_name="Counted-v0", episode_len=40)


def test_environments_are_closed_after_an_error(config, tmp_path):
    Counted.fails = "step"
    with pytest.raises(UserError, match="the simulator is gone"):
        train(config, tmp_path / "run")
    assert Counted.opened == []
    Counted.fails = 3
    with pytest.raises(UserError, match="the licence has expired"):
        train(config, tmp_path / "run")
    assert Counted.most == 4
    agent = small_agent(normalizer(11, 3), episode_len=40)
    spec = envs.lookup("Counted-v0")
    with pytest.raises(UserError, match="the licence has expired"):
        Evaluator(agent, spec, [1], 9, 0)


def test_error_of_close_is_a_warning(monkeypatch):
    env = envs.make(envs.lookup("Counted-v0"), [1, 2])
    monkeypatch.setattr(env.envs[1], "close", lambda: 1 / 0)
    with pytest.warns(UserWarning, match="failed to close: ZeroDivisionError"):
        env.close()
    monkeypatch.undo()
    Counted.opened.clear()


@pytest.mark.parametrize(("max_envs", "num_seeds"), [(1, 1), (5, 2)])
def test_few_environments_play_the_episodes_of_many(max_envs, num_seeds):
    agent = small_agent(normalizer(11, 3), episode_len=40)
    params = large_params(agent)
    if num_seeds > 1:
        params = jax.tree.map(lambda *x: np.stack(x), params, large_params(agent, 1))
    spec = envs.lookup("Counted-v0")
    found = []
    for limit in (None, max_envs):
        Counted.most = 0
        evaluator = Evaluator(agent, spec, TARGETS, 4, 42, num_seeds, limit)
        found.append((evaluator(params), evaluator(params)))
        evaluator.close()
    assert Counted.most <= max_envs
    (many, _), (few, again) = found
    np.testing.assert_allclose(few.returns, many.returns, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(few.returns, again.returns)
    np.testing.assert_array_equal(few.lengths, many.lengths)
    assert len(np.unique(few.returns)) == few.returns.size


def test_few_environments_of_envpool_play_the_episodes_of_many():
    agent = small_agent(normalizer(11, 3), episode_len=1000)
    params, spec = large_params(agent), envs.lookup("hopper-demo")
    many = Evaluator(agent, spec, TARGETS, 5, 42)(params)
    few = Evaluator(agent, spec, TARGETS, 5, 42, max_envs=3)(params)
    np.testing.assert_allclose(few.returns, many.returns, rtol=1e-4)
    np.testing.assert_array_equal(few.seeds, many.seeds)


def test_less_environments_than_seeds_are_refused():
    agent, spec = small_agent(normalizer(11, 3)), envs.lookup("Counted-v0")
    with pytest.raises(UserError, match="max_envs=1 is less than num_seeds=2"):
        Evaluator(agent, spec, TARGETS, 4, 42, num_seeds=2, max_envs=1)


@pytest.mark.slow
def test_one_environment_at_a_time_is_enough_and_is_closed(config, tmp_path):
    config = changed(config, max_envs=1)
    train(config, tmp_path / "run")
    assert Counted.opened == []
    evaluate(tmp_path / "run", episodes=3)
    assert Counted.opened == []
    dry_run(config, tmp_path / "other")
    assert Counted.opened == []
    assert Counted.most == 1


def test_video_plays_few_episodes_at_once_and_closes_their_environments():
    agent = small_agent(normalizer(11, 3), episode_len=40)
    params, spec = large_params(agent), envs.lookup("Counted-v0")
    one_by_one = play(agent, params, spec, TARGETS, [1, 2], max_envs=1)
    assert len([*render_episodes(one_by_one, spec, 1, (64, 64), 1)]) == 4 * 8
    assert Counted.most == 1
    for limit in (None, 3):
        found = play(agent, params, spec, TARGETS, [1, 2], max_envs=limit)
        assert Counted.opened == []
        for ours, theirs in zip(found, one_by_one, strict=True):
            names = (ours.seed, ours.target_return)
            assert names == (theirs.seed, theirs.target_return)
            np.testing.assert_allclose(ours.actions, theirs.actions, atol=1e-5)
    assert Counted.most == 4


def test_arguments_reach_the_environment(config, tmp_path):
    plain = envs.spec_from_config(config)
    spec = envs.spec_from_config(changed(config, env_kwargs='{"gain": 0}'))
    assert (plain.kwargs, spec.kwargs) == ({}, {"gain": 0})
    for each, rewarded in ((plain, True), (spec, False)):
        env = envs.make(each, [1])
        env.host_reset()
        assert bool(env.host_step(np.ones((1, 3))).rewards[0]) == rewarded
        env.close()
        view = make_view(each, 1, (64, 64))
        assert (view.env.envs[0].unwrapped.gain == 1) == rewarded
        view.close()


@pytest.mark.parametrize(
    "value",
    ["{'gain': 0, 'x': True}", '{"gain": 0, "x": true}', {"gain": 0, "x": True}],
)
def test_arguments_are_written_as_pythons_or_jsons_dictionary(value):
    config = default_config(env_kwargs=value)
    validate(config)
    assert envs.parse_arguments(config.env_kwargs) == {"gain": 0, "x": True}
    assert json.loads(json.dumps(config.to_dict()))["env_kwargs"] == config.env_kwargs
    if isinstance(value, str):
        override(config, "env_kwargs", value)
        assert config.env_kwargs == "{'gain': 0, 'x': True}"


@pytest.mark.parametrize("text", ["gain=0", "[1]", "{1: 2}", "{'a': b}", "[" * 99999])
def test_other_text_is_refused_as_arguments(text):
    with pytest.raises(UserError, match=r"env_kwargs=.*: expected keyword arguments"):
        override(default_config(), "env_kwargs", text)


def test_gymnasiums_environment_takes_the_arguments():
    """EnvPool, which has the name too, would be used without them."""
    spec = envs.lookup("Pendulum-v1", kwargs={"g": 1.0})
    assert (spec.engine, spec.kwargs) == ("gymnasium", {"g": 1.0})
    env = envs.make(spec, [0])
    assert env.envs[0].unwrapped.g == 1
    with pytest.raises(UserError, match=r"cannot be built: TypeError.*'height'"):
        envs.lookup("Pendulum-v1", kwargs={"height": 1.0})
    with pytest.raises(UserError, match="D4RL's environment, which takes no env_kw"):
        envs.lookup("hopper-demo", kwargs={"g": 1.0})


# An environment with a program of its own, as Unity or CARLA has.
WITH_PROGRAM = """if True:
    import subprocess, time
    import gymnasium
    from gymnasium.spaces import Box
    from dt_jax import envs
    from dt_jax.cli.common import run_command

    class WithProgram(gymnasium.Env):
        observation_space = action_space = Box(-1, 1, (2,))

        def __init__(self):
            self.program = subprocess.Popen(["sleep", "60"])

        def close(self):
            self.program.kill()
            self.program.wait()

    gymnasium.register("WithProgram-v0", WithProgram)

    def main():
        env = envs.make(envs.lookup("WithProgram-v0"), [1, 2])
        print(*(each.unwrapped.program.pid for each in env.envs), flush=True)
        time.sleep(100)

    run_command(main, "-c")
"""


def test_signal_closes_environments():
    process = start("-c", WITH_PROGRAM)
    programs = [int(pid) for pid in process.stdout.readline().split()]
    assert len(programs) == 2
    process.terminate()
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (143, "-c: interrupted by SIGTERM\n")
    for pid in programs:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
