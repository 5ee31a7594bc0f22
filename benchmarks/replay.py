"""Validate the physics against a recording: python benchmarks/replay.py FILE.

Steps each stored action from its stored state (infos/qpos, infos/qvel) and compares the
resulting observation with the next stored one.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import mujoco
import numpy as np
from rich.console import Console
from rich.table import Table

from dt_jax.data.arrays import check_finite
from dt_jax.data.d4rl import read_d4rl, read_env_name
from dt_jax.data.registry import EnvSpec, lookup
from dt_jax.envs import mazes
from dt_jax.envs.antmaze import ants
from dt_jax.envs.maze2d import points
from dt_jax.envs.mujoco_batch import MujocoBatch, gymnasium_xml
from dt_jax.utils.errors import UserError

_BATCH = 4096  # rows stepped at once

# The bodies that evaluation runs on EnvPool: Gymnasium's model, substeps, and the bound
# to which observations clip velocities.
_LOCOMOTION = {
    "halfcheetah": ("half_cheetah.xml", 5, np.inf),
    "hopper": ("hopper.xml", 4, 10.0),
    "walker2d": ("walker2d.xml", 4, 10.0),
}

Observe = Callable[[np.ndarray, np.ndarray], np.ndarray]  # qpos, qvel -> observations


class Replay(NamedTuple):
    """Errors of M replayed rows; each is followed by another row of its episode.

    Attributes:
      rows: [M] int, row numbers in the file.
      before: [M, S], |observation of the stored state - stored observation|.
      after: [M, S], the same after one step.
    """

    rows: np.ndarray
    before: np.ndarray
    after: np.ndarray


def replay(path: Path, spec: EnvSpec) -> Replay:
    """Step every action of a file from its stored state.

    Args:
      path: an HDF5 file in D4RL's schema with infos/qpos and infos/qvel.
      spec: the environment it was recorded in.

    Raises:
      UserError: the file cannot be read, has no states, does not match `spec`, or has
        no two successive rows of an episode.
    """
    raw = read_d4rl(path)
    states = _read_states(path, len(raw.rewards))
    if spec.engine not in _ENGINES:
        raise UserError(
            f"{spec.name} cannot be replayed, because EnvPool has a model of its own; "
            f"expected a dataset of {', '.join(_ENGINES)}"
        )
    batch, observe = _ENGINES[spec.engine](spec, min(_BATCH, len(raw.rewards)))
    sizes = tuple(a.shape[1] for a in (raw.observations, raw.actions, *states))
    expected = (
        spec.observation_size,
        spec.action_size,
        batch.qpos.shape[1],
        batch.qvel.shape[1],
    )
    if sizes != expected:
        raise UserError(
            f"{path}: expected observations, actions, qpos and qvel of sizes "
            f"{expected} as in {spec.name}, got {sizes}; --env_name names another "
            "environment"
        )
    # In the mazes an episode continues after a row with a terminal.
    ends = raw.timeouts if spec.maze else raw.timeouts | raw.terminals
    rows = np.flatnonzero(~ends[:-1])
    if not len(rows):
        raise UserError(f"{path}: no episode has two rows, so nothing can be compared")
    offset = _state_offset(observe(*states), raw.observations, rows)
    rows = rows[(rows >= offset) & ~ends[rows - offset]]
    before, after = [], []
    for block in np.array_split(rows, -(-len(rows) // len(batch.qpos))):
        used = np.arange(len(batch.qpos)) < len(block)
        batch.qpos[used], batch.qvel[used] = (state[block - offset] for state in states)
        controls = np.zeros((len(used), spec.action_size))
        controls[used] = raw.actions[block]
        before.append(observe(batch.qpos, batch.qvel)[used])
        batch.step(controls, used)
        after.append(observe(batch.qpos, batch.qvel)[used])
    return Replay(
        rows,
        np.abs(np.concatenate(before) - raw.observations[rows]),
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


def _state_offset(
    observed: np.ndarray, observations: np.ndarray, rows: np.ndarray
) -> int:
    """Return 1 if a row's state is the one after its action, 0 if the one before.

    D4RL's antmaze files have the former, its maze2d files and demo files the latter.
    """
    before = np.abs(observed[rows] - observations[rows]).mean()
    return int(np.abs(observed[rows] - observations[rows + 1]).mean() < before)


def _locomotion(spec: EnvSpec, num: int) -> tuple[MujocoBatch, Observe]:
    xml, substeps, max_speed = _LOCOMOTION[spec.family]
    with gymnasium_xml(xml) as path:
        model = mujoco.MjModel.from_xml_path(str(path))

    def without_x(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        clipped = np.clip(qvel, -max_speed, max_speed)
        return np.concatenate([qpos[:, 1:], clipped], axis=1)

    return MujocoBatch(model, num, substeps), without_x


def _full_state(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    return np.concatenate([qpos, qvel], axis=1)


# By `EnvSpec.engine`: a batch whose controls are actions, and how it is observed.
_ENGINES: dict[str, Callable[[EnvSpec, int], tuple[MujocoBatch, Observe]]] = {
    "antmaze": lambda spec, num: (ants(mazes.antmaze(spec.maze), num), _full_state),
    "maze2d": lambda spec, num: (points(mazes.maze2d(spec.maze), num), _full_state),
    "locomotion": _locomotion,
}


def main() -> None:
    """Replay the file that the command line names and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="HDF5 with infos/qpos and infos/qvel")
    parser.add_argument(
        "--env_name", help="its dataset; the files of the demo datasets name their own"
    )
    args = parser.parse_args()
    env_name = args.env_name or read_env_name(args.file)
    if env_name is None:
        raise UserError(f"{args.file} does not name its dataset: give --env_name")
    result = replay(args.file, lookup(env_name))
    print(f"{args.file}: {len(result.rows):,} steps replayed as {env_name}")
    Console().print(_table(result))


def _table(result: Replay) -> Table:
    """Return a table of the errors before and after a step."""
    table = Table("|difference|", "median", "99 %", "largest", "in row", "in column")
    for name, errors in [
        ("stored state", result.before),
        ("after the step", result.after),
    ]:
        row, column = np.unravel_index(errors.argmax(), errors.shape)
        quantiles = [f"{np.quantile(errors, q):.1e}" for q in (0.5, 0.99, 1)]
        table.add_row(name, *quantiles, f"{result.rows[row]}", f"{column}")
    return table


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"replay.py: error: {error}", file=sys.stderr)
        sys.exit(2)
