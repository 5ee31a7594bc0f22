"""D4RL's mazes: grids of square cells, with shortest paths."""

from collections import deque
from dataclasses import dataclass

import numpy as np

# Row by row: # wall, . free, S start, G goal of evaluation, g goal of D4RL's play data,
# B both goals. Maps of d4rl/locomotion/maze_env.py and d4rl/pointmaze/maze_model.py.
_ANTMAZE = {
    "umaze": "##### #S..# ###.# #B..# #####",
    "medium": "######## #S.##..# #..#..g# ##...### #..#...# #g#..#.# #...#gG# ########",
    "large": (
        "############ #S...#g....# #.##.#.#.#.# #....g.#..g# #.####.###.# "
        "#.g#.#.....# ##.#.#.#.### #..#g.g#.B.# ############"
    ),
}
_MAZE2D = {
    "umaze": "##### #G..# ###.# #...# #####",
    "medium": "######## #..##..# #..#...# ##...### #..#...# #.#..#.# #...#.G# ########",
    "large": (
        "############ #....#.....# #.##.#.#.#.# #......#...# #.####.###.# "
        "#..#.#.....# ##.#.#.#.### #..#...#.G.# ############"
    ),
}

Cell = tuple[int, int]  # row, column


@dataclass(frozen=True, eq=False)
class Maze:
    """A grid of cells.

    Attributes:
      free: [rows, columns] bool, false for walls.
      goal: the goal of evaluation.
      start: the start of evaluation; None if it is random, as in maze2d.
      play_goals: the hand-picked goals of D4RL's play data; none in maze2d.
    """

    free: np.ndarray
    goal: Cell
    start: Cell | None
    play_goals: list[Cell]

    @property
    def cells(self) -> list[Cell]:
        """The free cells, row by row."""
        return _cells(self.free)

    @property
    def walls(self) -> list[Cell]:
        """The wall cells, row by row."""
        return _cells(~self.free)

    def path(self, start: Cell, goal: Cell) -> list[Cell]:
        """Return the cells of a shortest path, from `start` to `goal` inclusive.

        A breadth-first search. Value iteration on the grid with any discount below 1
        finds a path of the same length.

        Raises:
          ValueError: one of the two cells is a wall.
        """
        following: dict[Cell, Cell] = {goal: goal}  # the next cell towards the goal
        frontier = deque([goal] if self.free[goal] else [])
        while frontier and start not in following:
            row, column = cell = frontier.popleft()
            for neighbour in (
                (row - 1, column),
                (row + 1, column),
                (row, column - 1),
                (row, column + 1),
            ):  # never outside the grid: walls surround it
                if self.free[neighbour] and neighbour not in following:
                    following[neighbour] = cell
                    frontier.append(neighbour)
        if start not in following:
            raise ValueError(f"no path from {start} to {goal}")
        path = [start]
        while path[-1] != goal:
            path.append(following[path[-1]])
        return path


def antmaze(name: str) -> Maze:
    """Return the ant's maze "umaze", "medium" or "large"."""
    return _parse(_ANTMAZE[name])


def maze2d(name: str) -> Maze:
    """Return the point's maze "umaze", "medium" or "large"."""
    return _parse(_MAZE2D[name])


def _cells(where: np.ndarray) -> list[Cell]:
    return [(int(row), int(column)) for row, column in np.argwhere(where)]


def _parse(text: str) -> Maze:
    grid = np.array([list(row) for row in text.split()])

    def find(letters: str) -> list[Cell]:
        return _cells(np.isin(grid, list(letters)))

    (goal,) = find("GB")
    start, *_ = [*find("S"), None]
    return Maze(free=grid != "#", goal=goal, start=start, play_goals=find("gB"))
