"""D4RL's mazes: grids of square cells, and the shortest ways through them."""

from collections import deque
from dataclasses import dataclass

import numpy as np

# Row by row: # wall, . free, S start; G goal of evaluation, g of D4RL's play data, B of
# both. Maps of d4rl/locomotion/maze_env.py and d4rl/pointmaze/maze_model.py.
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
      free: [rows, columns] bool, false where a wall stands.
      goal: where evaluation asks to go.
      start: where evaluation begins; None where that is anywhere, as in maze2d.
      play_goals: picked by hand for D4RL's play data; none in maze2d.
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
        """The cells that are walls, row by row."""
        return _cells(~self.free)

    def path(self, start: Cell, goal: Cell) -> list[Cell]:
        """Return the cells of a shortest way, `start` and `goal` among them.

        Found breadth first. Value iteration on the grid with any discount below 1
        finds a way of the same length.

        Raises:
          ValueError: there is no way, for one of them is a wall.
        """
        before: dict[Cell, Cell] = {goal: goal}  # on the way from the goal, outwards
        frontier = deque([goal] if self.free[goal] else [])
        while frontier and start not in before:
            row, column = here = frontier.popleft()
            for there in (
                (row - 1, column),
                (row + 1, column),
                (row, column - 1),
                (row, column + 1),
            ):
                if self.free[there] and there not in before:  # a wall is all around
                    before[there] = here
                    frontier.append(there)
        if start not in before:
            raise ValueError(f"no way from {start} to {goal}")
        path = [start]
        while path[-1] != goal:
            path.append(before[path[-1]])
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
