from itertools import pairwise

import numpy as np
import pytest

from dt_jax.envs import mazes


def distances(maze, goal):
    """Return the steps from each cell to `goal`, by value iteration."""
    steps = np.full(maze.free.shape, np.inf)
    steps[goal] = 0
    while True:
        before = steps.copy()
        for row, column in maze.cells:
            for d_row, d_column in [(-1, 0), (1, 0), (0, -1), (0, 1)]:
                neighbour = row + d_row, column + d_column
                if maze.free[neighbour]:
                    steps[row, column] = min(steps[row, column], steps[neighbour] + 1)
        if (steps == before).all():
            return steps


@pytest.mark.parametrize("kind", [mazes.antmaze, mazes.maze2d])
@pytest.mark.parametrize("name", ["umaze", "medium", "large"])
def test_paths_are_shortest_and_avoid_walls(kind, name):
    maze = kind(name)
    for goal in maze.cells[::5]:
        steps = distances(maze, goal)
        for start in maze.cells:
            path = maze.path(start, goal)
            assert (path[0], path[-1]) == (start, goal)
            assert len(path) - 1 == steps[start]
            assert all(maze.free[cell] for cell in path)
            for (row, column), (next_row, next_column) in pairwise(path):
                assert abs(row - next_row) + abs(column - next_column) == 1


def test_path_to_a_wall_is_an_error():
    maze = mazes.antmaze("umaze")
    with pytest.raises(ValueError, match="no path"):
        maze.path((1, 1), (0, 0))


def test_starts_and_goals():
    assert mazes.antmaze("umaze").play_goals == [(3, 1)]
    medium, large = mazes.antmaze("medium"), mazes.antmaze("large")
    assert (medium.start, medium.goal) == ((1, 1), (6, 6))
    assert medium.play_goals == [(2, 6), (5, 1), (6, 5)]
    assert (large.start, large.goal) == ((1, 1), (7, 9))
    goals = [(1, 6), (3, 5), (3, 10), (5, 2), (7, 4), (7, 6), (7, 9)]
    assert large.play_goals == goals
    assert mazes.maze2d("umaze").goal == (1, 1)
    assert mazes.maze2d("umaze").start is None
    assert len(large.cells) + len(large.walls) == 12 * 9
