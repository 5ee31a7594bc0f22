import sys

import envpool
import h5py
import numpy as np
import pytest

from benchmarks import replay as module
from benchmarks.replay import replay
from dt_jax.data.registry import lookup
from dt_jax.datasets.demo import collect_demo
from dt_jax.utils.errors import UserError

KEYS = ("qpos", "qvel")
FLOAT32 = 1e-6  # tolerance of observations stored in float32


@pytest.fixture(scope="module")
def maze2d(tmp_path_factory):
    path = tmp_path_factory.mktemp("replay") / "maze2d.hdf5"
    collect_demo("maze2d-medium-demo", path, steps=5000)
    return path


def changed(path, out, **arrays):
    """Write a copy of a file with replaced arrays; None omits one."""
    with h5py.File(path) as source, h5py.File(out, "w") as file:
        for key in ["observations", "actions", "rewards", "terminals", "timeouts"]:
            file[key] = arrays.get(key, source[key][()])
        for key in ["qpos", "qvel"]:
            array = arrays.get(key, source["infos"][key][()])
            if array is not None:
                file[f"infos/{key}"] = array
    return out


def read(path, key):
    with h5py.File(path) as file:
        return file[key][()]


def test_demo_datasets_are_reproduced(maze2d, tmp_path):
    ends = read(maze2d, "timeouts")
    result = replay(maze2d, lookup("maze2d-medium-demo"))
    assert result.rows.tolist() == np.flatnonzero(~ends[:-1]).tolist()
    assert result.after.shape == (len(result.rows), 4)
    assert max(result.before.max(), result.after.max()) < FLOAT32

    out = tmp_path / "antmaze.hdf5"
    collect_demo("antmaze-umaze-demo", out, steps=9)  # one episode
    result = replay(out, lookup("antmaze-umaze-demo"))
    assert len(result.rows) == 700  # of 701: terminals do not end an episode
    assert max(result.before.max(), result.after.max()) < FLOAT32


def test_modified_action_is_detected(maze2d, tmp_path):
    actions = read(maze2d, "actions")
    row = int(np.flatnonzero(~read(maze2d, "timeouts"))[1000])
    actions[row] += np.where(actions[row] > 0, -0.1, 0.1)
    other = changed(maze2d, tmp_path / "other.hdf5", actions=actions)
    result = replay(other, lookup("maze2d-medium-v1"))
    wrong = (result.after > FLOAT32).any(axis=1)
    assert result.rows[wrong].tolist() == [row]
    assert result.before.max() < FLOAT32


def test_states_may_be_stored_after_the_actions(maze2d, tmp_path):
    """As in D4RL's antmaze files; the offset is detected."""
    states = {key: np.roll(read(maze2d, f"infos/{key}"), -1, axis=0) for key in KEYS}
    other = changed(maze2d, tmp_path / "after.hdf5", **states)
    result = replay(other, lookup("maze2d-medium-v1"))
    ends = read(maze2d, "timeouts")
    assert len(result.rows) == np.count_nonzero(~ends[1:-1] & ~ends[:-2])
    assert max(result.before.max(), result.after.max()) < FLOAT32


@pytest.mark.parametrize(
    ("env_name", "env_id"),
    [
        ("halfcheetah-demo", "HalfCheetah-v4"),
        ("hopper-demo", "Hopper-v4"),
        ("walker2d-demo", "Walker2d-v4"),
    ],
)
def test_envpools_bodies_match_gymnasiums(tmp_path, env_name, env_id):
    """x, which has no effect, is set to 0."""
    pool = envpool.make_gymnasium(env_id, num_envs=1, seed=0)
    rng, spec, steps = np.random.default_rng(0), lookup(env_name), 60
    observation, _ = pool.reset()
    rows = []
    for _ in range(steps):
        action = rng.uniform(-0.3, 0.3, (1, spec.action_size))
        following, _, terminated, _, _ = pool.step(action)
        rows.append((observation[0], action[0], terminated[0]))
        observation = following
        if terminated[0]:
            observation, *_ = pool.step(action)  # starts a new episode
    pool.close()
    observations, actions, terminals = map(np.array, zip(*rows, strict=True))
    clipped = (np.abs(observations) == 10).any(axis=1)  # the state is unknown there
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["observations"], file["actions"] = observations, actions
        file["rewards"], file["terminals"] = np.zeros(steps), terminals
        file["timeouts"] = clipped
        angles = spec.observation_size // 2
        file["infos/qpos"] = np.pad(observations[:, :angles], ((0, 0), (1, 0)))
        file["infos/qvel"] = observations[:, angles:]
    result = replay(tmp_path / "x.hdf5", spec)
    assert len(result.rows) > steps / 2
    assert result.after.max() < 1e-4


@pytest.mark.parametrize(
    ("env_name", "arrays", "message"),
    [
        ("antmaze-umaze-v2", {}, "--env_name names another"),
        ("pen-human-v1", {}, "pen-human-v1 cannot be replayed"),
        ("maze2d-medium-v1", {"qvel": None}, r"infos/qvel \[5204, size\] is missing"),
        ("maze2d-medium-v1", {"qpos": np.zeros((9, 2))}, r"infos/qpos \[5204, size\]"),
        ("maze2d-medium-v1", {"timeouts": np.ones(5204)}, "no episode has two rows"),
    ],
)
def test_unusable_recording_is_refused(maze2d, tmp_path, env_name, arrays, message):
    path = changed(maze2d, tmp_path / "a.hdf5", **arrays)
    with pytest.raises(UserError, match=message):
        replay(path, lookup(env_name))


def test_nan_state_is_refused_before_mujoco_logs_it(maze2d, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    qpos = read(maze2d, "infos/qpos")
    qpos[7, 1] = np.nan
    path = changed(maze2d, tmp_path / "nan.hdf5", qpos=qpos)
    with pytest.raises(UserError, match=r"infos/qpos is NaN, .*, first in row 7"):
        replay(path, lookup("maze2d-medium-v1"))
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()


def test_command(maze2d, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["replay", str(maze2d)])
    module.main()
    out = capsys.readouterr().out
    assert "steps replayed as maze2d-medium-demo" in out
    assert "after the step" in out
    nameless = changed(maze2d, tmp_path / "nameless.hdf5")
    monkeypatch.setattr(sys, "argv", ["replay", str(nameless)])
    with pytest.raises(UserError, match="does not name its dataset: give --env_name"):
        module.main()
