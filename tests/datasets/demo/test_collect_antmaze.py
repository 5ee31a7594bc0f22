import h5py
import numpy as np
import pytest

from dt_jax.data.d4rl import read_d4rl
from dt_jax.data.registry import lookup
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets.demo import antmaze, collect_demo
from dt_jax.envs import mazes
from dt_jax.envs.antmaze import ants, center

LIMIT = lookup("antmaze-umaze-demo").max_episode_steps


@pytest.fixture(scope="module")
def umaze(tmp_path_factory):
    """Four episodes, as a file and as returned."""
    path = tmp_path_factory.mktemp("antmaze") / "umaze.hdf5"
    (episodes,) = collect_demo("antmaze-umaze-demo", path, steps=4 * LIMIT)
    return path, episodes


def test_file_contents(umaze):
    sizes = {
        "observations": (29,),
        "actions": (8,),
        "rewards": (),
        "terminals": (),
        "timeouts": (),
        "infos/qpos": (15,),
        "infos/qvel": (14,),
        "infos/goal": (2,),
    }
    with h5py.File(umaze[0]) as file:
        assert file.attrs["env_name"] == "antmaze-umaze-demo"
        data = {key: file[key][()] for key in sizes}
    rows = 4 * (LIMIT + 1)
    for key, size in sizes.items():
        assert data[key].shape == (rows, *size)
    ends = np.flatnonzero(data["timeouts"])
    np.testing.assert_array_equal(ends, np.arange(1, 5) * (LIMIT + 1) - 1)
    state = np.concatenate([data["infos/qpos"], data["infos/qvel"]], axis=1)
    np.testing.assert_array_equal(data["observations"], state.astype(np.float32))
    assert np.abs(data["actions"]).max() == 1


def test_rewards_and_terminals_are_for_evaluations_goal(umaze):
    """Checked by a loop over the rows; episodes continue after arriving."""
    maze = mazes.antmaze("umaze")
    goal = antmaze.evaluation_goal(maze)
    np.testing.assert_array_equal(goal, [0.75, 8.75])
    for episode in umaze[1]:
        assert (episode.infos["goal"][0] != goal).any()
        for t in range(LIMIT):
            distance = np.linalg.norm(episode.observations[t + 1, :2] - goal)
            if abs(distance - 0.5) > 1e-5:  # except for float32 rounding
                assert episode.rewards[t] == (distance <= 0.5)
        np.testing.assert_array_equal(episode.terminals, episode.rewards == 1)
        arrival = episode.rewards.argmax()
        assert 100 < arrival < 300
        assert len(episode.rewards) == LIMIT + 1


def test_corl_split_ends_trajectories_at_every_row_in_the_goal(umaze):
    """Most of these trajectories have one step."""
    path, episodes = umaze
    store = Trajectories.from_raw(read_d4rl(path), source="umaze")
    inside = sum(int(episode.terminals.sum()) for episode in episodes)
    unfinished = sum(not episode.terminals[-1] for episode in episodes)
    assert store.num_trajectories == inside + unfinished
    assert store.dropped_tail == 0
    assert set(store.episode_returns) <= {0, 1}


def test_steps_can_be_reproduced_from_the_stored_states(umaze):
    episode = umaze[1][1]
    bodies = ants(mazes.antmaze("umaze"), LIMIT)
    bodies.qpos[:] = episode.infos["qpos"][:-1]
    bodies.qvel[:] = episode.infos["qvel"][:-1]
    bodies.step(episode.actions[:-1])
    np.testing.assert_array_equal(bodies.qpos, episode.infos["qpos"][1:])
    np.testing.assert_array_equal(bodies.qvel, episode.infos["qvel"][1:])


def test_action_noise_is_d4rls(monkeypatch):
    """Without a controller the action is only noise, too small to be clipped."""

    def still(self, observations, _):
        return np.zeros((len(observations), 8))

    monkeypatch.setattr(antmaze.AntController, "act", still)
    ((episode,),) = antmaze.collect(lookup("antmaze-umaze-demo"), 1, 0, id)
    assert abs(episode.actions.mean()) < 0.015
    np.testing.assert_allclose(episode.actions.std(), 0.2, rtol=0.05)


def starts_and_goals(name, maze_name, episodes):
    """Return the maze, and starts, goals [N, 2] and paths of episodes."""
    maze = mazes.antmaze(maze_name)
    bodies = ants(maze, episodes)
    cells = antmaze._starts_and_goals(maze, name)
    paths = [
        antmaze._place_at_start(maze, bodies, i, *cells, np.random.default_rng(i))
        for i in range(episodes)
    ]
    return maze, bodies.qpos[:, :2], np.array([path[-1] for path in paths]), paths


def cell_of(maze, points):
    """Return the cells of points at or above their centres in x and y."""
    columns, rows = np.floor((points + 0.1) / 4).astype(int).T
    return set(zip(rows + maze.start[0], columns + maze.start[1], strict=True))


@pytest.mark.parametrize(
    ("name", "maze_name", "starts", "goals"),
    [
        ("antmaze-umaze-demo", "umaze", 1, 1),
        ("antmaze-umaze-diverse-demo", "umaze", 7, 7),
        ("antmaze-medium-play-demo", "medium", 23, 3),
        ("antmaze-medium-diverse-demo", "medium", 26, 26),
        ("antmaze-large-play-demo", "large", 39, 7),
    ],
)
def test_cells_of_starts_and_goals(name, maze_name, starts, goals):
    maze, first, last, paths = starts_and_goals(name, maze_name, episodes=300)
    assert len(cell_of(maze, first)) == starts
    assert len(cell_of(maze, last)) == goals
    if "play" in name:
        assert cell_of(maze, last) == set(maze.play_goals)
        assert not cell_of(maze, first) & set(maze.play_goals)
    for start, path in zip(first[:20], paths, strict=False):
        steps = np.linalg.norm(np.diff([start, *path], axis=0), axis=1)
        assert steps.max() < 4 + 2 * 1.5  # from a cell to its neighbour
    assert (center(maze, maze.start) == 0).all()
