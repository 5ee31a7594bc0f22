"""Hold the physics against a recording: python benchmarks/replay.py FILE.

From each stored state (infos/qpos, infos/qvel) the stored action is stepped, and what
is then observed is compared with the next stored observation.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import mujoco
import numpy as np
from rich.console import Console
from rich.table import Table

from dt_jax.cli.common import CommandParser, run_command
from dt_jax.data.arrays import check_finite
from dt_jax.data.d4rl import read_d4rl, read_env_name
from dt_jax.data.registry import DatasetSpec, lookup
from dt_jax.envs import mazes
from dt_jax.envs.antmaze import ants
from dt_jax.envs.maze2d import points
from dt_jax.envs.mujoco_bodies import Bodies, gymnasium_xml
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import user_path

_ROWS = 4096  # stepped at once

# Of the bodies that evaluation plays on EnvPool: Gymnasium's model, substeps, and the
# speed at which its observation clips.
_LOCOMOTION = {
    "halfcheetah": ("half_cheetah.xml", 5, np.inf),
    "hopper": ("hopper.xml", 4, 10.0),
    "walker2d": ("walker2d.xml", 4, 10.0),
}


class Replay(NamedTuple):
    """What came of the rows that another row of their episode follows.

    The errors are absolute differences, [M, S].
    """

    rows: np.ndarray  # [M] int, where in the file
    now: np.ndarray  # between the stored states' observations and the stored ones
    after: np.ndarray  # the same, one step later


def replay(path: Path, spec: DatasetSpec) -> Replay:
    """Step every action of a file from its stored state.

    Args:
      path: an HDF5 file in D4RL's schema with infos/qpos and infos/qvel.
      spec: the environment that it was recorded in.

    Raises:
      UserError: the file cannot be read, lacks the states, does not fit `spec` or has
        nothing to compare.
    """
    raw = read_d4rl(path)
    states = _read_states(path, len(raw.rewards))
    bodies, observe = _engine(spec, min(_ROWS, len(raw.rewards)))
    sizes = tuple(a.shape[1] for a in (raw.observations, raw.actions, *states))
    own = spec.observation_size, spec.action_size, *bodies.state_sizes
    if sizes != own:
        raise UserError(
            f"{path}: observations, actions, qpos and qvel of {sizes} numbers, where "
            f"{spec.name} has {own}; --env_name names another environment"
        )
    # In the mazes, an episode goes on after a row that terminals mark.
    ends = raw.timeouts | (raw.terminals & (spec.family in _LOCOMOTION))
    rows = _any(np.flatnonzero(~ends[:-1]), path)
    offset = _offset(observe(*states), raw.observations, rows)
    rows = _any(rows[(rows >= offset) & ~ends[rows - offset]], path)
    now, after = [], []
    for block in np.array_split(rows, -(-len(rows) // len(bodies.qpos))):
        used = np.arange(len(bodies.qpos)) < len(block)
        bodies.qpos[used], bodies.qvel[used] = (
            state[block - offset] for state in states
        )
        controls = np.zeros((len(used), spec.action_size))
        controls[used] = raw.actions[block]
        now.append(observe(bodies.qpos, bodies.qvel)[used])
        bodies.step(controls, used)
        after.append(observe(bodies.qpos, bodies.qvel)[used])
    return Replay(
        rows,
        np.abs(np.concatenate(now) - raw.observations[rows]),
        np.abs(np.concatenate(after) - raw.observations[rows + 1]),
    )


def _read_states(path: Path, rows: int) -> list[np.ndarray]:
    """Return the simulator's states, [M, nq] and [M, nv] float64."""
    states = []
    with h5py.File(path, "r") as file:
        for key in ("infos/qpos", "infos/qvel"):
            if key not in file or np.ndim(file[key]) != 2 or len(file[key]) != rows:
                raise UserError(f"{path}: {key} [{rows}, size] is missing")
            states.append(file[key][()].astype(np.float64))
            check_finite(states[-1], f"{path}: {key}")
    return states


def _any(rows: np.ndarray, path: Path) -> np.ndarray:
    """Return the rows, of which there must be one."""
    if not len(rows):
        raise UserError(
            f"{path}: no row with a state is followed by another of its episode, so "
            "that there is nothing to compare"
        )
    return rows


def _offset(observed: np.ndarray, observations: np.ndarray, rows: np.ndarray) -> int:
    """Return 1 where a row's state is that after its action, 0 where before.

    D4RL's antmaze files have the former, its maze2d files and ours the latter.
    """
    before = np.abs(observed[rows] - observations[rows]).mean()
    return int(np.abs(observed[rows] - observations[rows + 1]).mean() < before)


def _engine(
    spec: DatasetSpec, num: int
) -> tuple[Bodies, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """Return bodies whose controls are actions, and what observes their states."""
    if spec.family == "antmaze":
        return ants(mazes.antmaze(spec.maze), num), _whole_state
    if spec.family == "maze2d":
        return points(mazes.maze2d(spec.maze), num), _whole_state
    if spec.family not in _LOCOMOTION:
        raise UserError(
            f"{spec.name} cannot be replayed, for its model is EnvPool's own; antmaze, "
            f"maze2d, {', '.join(_LOCOMOTION)} can"
        )
    xml, substeps, top_speed = _LOCOMOTION[spec.family]
    with gymnasium_xml(xml) as path:
        model = mujoco.MjModel.from_xml_path(str(path))

    def all_but_x(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        clipped = np.clip(qvel, -top_speed, top_speed)
        return np.concatenate([qpos[:, 1:], clipped], axis=1)

    return Bodies(model, num, substeps), all_but_x


def _whole_state(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    return np.concatenate([qpos, qvel], axis=1)


def main() -> None:
    """Replay the file that the command line names and print a table."""
    parser = CommandParser(
        prog="python benchmarks/replay.py",
        description="Step the actions of a file from its stored states and compare "
        "what follows with what the file says.",
        epilog="example: python benchmarks/replay.py hopper.hdf5 "
        "--env_name=hopper-medium-v2",
    )
    parser.add_argument("file", type=Path, help="HDF5 with infos/qpos and infos/qvel")
    parser.add_argument(
        "--env_name", help="where it was recorded; our own files say it themselves"
    )
    args = parser.parse_args()
    path = user_path(args.file)
    env_name = args.env_name or read_env_name(path)
    if env_name is None:
        raise UserError(f"{path} does not say where it was recorded: give --env_name")
    result = replay(path, lookup(env_name))
    print(f"{path}: {len(result.rows):,} steps replayed as {env_name}")
    Console().print(_table(result))


def _table(result: Replay) -> Table:
    """Lay out how far the observations are from the file's, before and after a step."""
    table = Table("|difference|", "median", "99 %", "largest", "in row", "of number")
    for name, errors in [
        ("stored state", result.now),
        ("after the step", result.after),
    ]:
        row, number = np.unravel_index(errors.argmax(), errors.shape)
        table.add_row(
            name,
            *(f"{np.quantile(errors, q):.1e}" for q in (0.5, 0.99, 1)),
            f"{result.rows[row]}",
            f"{number}",
        )
    return table


if __name__ == "__main__":
    run_command(main, "replay.py")
