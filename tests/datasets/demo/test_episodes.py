import h5py
import numpy as np
import pytest

from dt_jax.datasets.demo import write_d4rl
from dt_jax.envs.base import HostEnv
from dt_jax.rollout.episodes import Episode, run_episodes


class Counting(HostEnv):
    """Observes (episode, t), rewards episode + t; episode i ends after lengths[i]."""

    def __init__(self, lengths):
        super().__init__("Counting", (len(lengths), 2, 1), max_episode_steps=4)
        self._lengths = np.array(lengths)

    def _observations(self):
        columns = (np.arange(self.num_envs), np.full(self.num_envs, self._t))
        return np.stack(columns, axis=1)

    def _start(self):
        self._t = 0
        return self._observations()

    def _advance(self, actions):
        rewards = np.arange(self.num_envs) + self._t
        self._t += 1
        # As if the environments had started again: an ended one is not done any more.
        return self._observations(), rewards, self._t == self._lengths


class Recording:
    """Answers with the time and keeps what it was asked with."""

    def __init__(self):
        self.calls = []

    def act(self, observations, rewards=None, done=None):
        self.calls.append((rewards, done))
        return observations[:, 1:].astype(np.float64) / 10


def test_whole_episodes_in_the_order_of_the_seeds():
    policy = Recording()
    episodes = run_episodes(Counting([2, 4, 1]), policy)
    for i, (episode, length) in enumerate(zip(episodes, [2, 4, 1], strict=True)):
        time = np.arange(length)
        np.testing.assert_array_equal(episode.observations[:, 0], np.full(length, i))
        np.testing.assert_array_equal(episode.observations[:, 1], time)
        np.testing.assert_allclose(episode.actions[:, 0], time / 10)
        np.testing.assert_array_equal(episode.rewards, i + time)
        assert {array.dtype for array in episode[:3]} == {np.dtype(np.float32)}
        last = time == length - 1
        np.testing.assert_array_equal(episode.terminals, last & (length < 4))
        np.testing.assert_array_equal(episode.timeouts, last & (length == 4))
    assert len(policy.calls) == 4
    assert policy.calls[0] == (None, None)
    rewards, done = policy.calls[2]
    np.testing.assert_array_equal(rewards, [1, 2, 3])
    np.testing.assert_array_equal(done, [True, False, False])


def episode(length, value):
    last = np.arange(length) == length - 1
    return Episode(
        np.full((length, 3), value, np.float32),
        np.full((length, 2), -value, np.float32),
        np.full(length, 10 * value, np.float32),
        terminals=last & (value > 1),
        timeouts=last & (value == 1),
        infos={"goal": np.full((length, 2), value)},
    )


def test_the_file_has_d4rls_schema(tmp_path):
    out = tmp_path / "new" / "x.hdf5"
    write_d4rl(out, [episode(3, 1), episode(2, 2), episode(1, 3)], {"seed": 4})
    with h5py.File(out) as file:
        infos = {name: dataset[()] for name, dataset in file["infos"].items()}
        data = {n: d[()] for n, d in file.items() if isinstance(d, h5py.Dataset)}
        assert dict(file.attrs) == {"seed": 4}
    values = [1, 1, 1, 2, 2, 3]
    assert list(infos) == ["goal"]
    np.testing.assert_array_equal(infos["goal"], np.outer(values, [1, 1]))
    np.testing.assert_array_equal(data["observations"], np.outer(values, [1, 1, 1]))
    np.testing.assert_array_equal(data["actions"], np.outer(values, [-1, -1]))
    np.testing.assert_array_equal(data["rewards"], 10 * np.array(values))
    np.testing.assert_array_equal(data["timeouts"], [0, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(data["terminals"], [0, 0, 0, 0, 1, 1])
    assert data["timeouts"].dtype == data["terminals"].dtype == bool
    assert data["observations"].dtype == data["rewards"].dtype == np.float32


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path):
    out = tmp_path / "x.hdf5"
    write_d4rl(out, [episode(1, 1)], {})
    before = out.read_bytes()
    with pytest.raises(TypeError):
        write_d4rl(out, [episode(2, 2)], {"seed": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["x.hdf5"]
    assert out.read_bytes() == before
