"""Demo datasets, collected locally with bundled behaviour policies."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from rich.console import Console
from rich.progress import Progress

from dt_jax.data.registry import all_specs
from dt_jax.datasets.demo import antmaze, locomotion, maze2d, tabular
from dt_jax.rollout.episodes import Episode
from dt_jax.utils.errors import UserError, did_you_mean
from dt_jax.utils.files import atomic_write, check_writable

_STEPS = {
    "halfcheetah": 200_000,
    "hopper": 200_000,
    "walker2d": 100_000,
    "maze2d": 200_000,
    "antmaze": 200_000,
    "corridor": 1_500,
    "gambling": 100_000,
    "grid": 4_500,  # about 100 episodes
}
# By `EnvSpec.engine`.
_COLLECTORS = {
    "locomotion": locomotion,
    "maze2d": maze2d,
    "antmaze": antmaze,
    "tabular": tabular,
}


def collect_demo(
    env_name: str, out: Path, *, steps: int | None = None, seed: int = 0
) -> list[list[Episode]]:
    """Collect a demo dataset into a file in D4RL's schema, with progress on stderr.

    Args:
      env_name: "hopper-demo", "maze2d-umaze-demo", "antmaze-umaze-demo", ...
      out: the file; the same bytes for the same name, steps and seed.
      steps: minimum number of transitions; only whole episodes are collected, so there
        are a few more.
      seed: not negative.

    Returns:
      The episodes of each skill level in the order of the file, the worst level first.
      The mazes' controllers have one level.

    Raises:
      UserError: there is no demo dataset of that name, a number is out of range, or
        `out` cannot be written to.
    """
    demos = {name: spec for name, spec in all_specs().items() if spec.is_demo}
    if env_name not in demos:
        hint = did_you_mean(env_name, demos)
        raise UserError(f"unknown demo dataset {env_name!r}{hint}")
    spec = demos[env_name]
    steps = _STEPS[spec.family] if steps is None else steps
    if steps < 4:
        raise UserError(f"steps is {steps}, expected at least 4")
    if not 0 <= seed < 2**31:
        raise UserError(f"seed is {seed}, expected 0 to {2**31 - 1}")
    if out.exists() and not out.is_file():
        raise UserError(f"{out} is not a regular file: choose another path")
    try:
        check_writable(out)
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written to ({error.strerror}); choose another path"
        ) from error
    print(f"collecting {steps:,} transitions into {out}", file=sys.stderr)
    collector = _COLLECTORS[spec.engine]
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"collecting {env_name}", total=steps)
        levels = collector.collect(spec, steps, seed, partial(bar.advance, task))
    write_d4rl(
        out,
        [episode for level in levels for episode in level],
        {
            "env_name": env_name,
            "seed": seed,
            "steps": steps,
            "action_noise": collector.ACTION_NOISE,
        },
    )
    return levels


def write_d4rl(
    out: Path, episodes: Sequence[Episode], attributes: Mapping[str, str | int | float]
) -> None:
    """Write episodes in D4RL's schema; equal episodes give equal bytes.

    Args:
      out: the file; it appears when it is complete, in a folder created if missing.
      episodes: at least one, all with the same infos.
      attributes: stored with the file, as its provenance.
    """
    *columns, infos = zip(*episodes, strict=True)
    arrays = dict(zip(Episode._fields[:-1], columns, strict=True))
    arrays |= {f"infos/{key}": [info[key] for info in infos] for key in infos[0]}
    with (
        atomic_write(out) as unfinished,
        h5py.File(unfinished, "w", locking=False) as file,  # not all disks have locks
    ):
        for name, parts in arrays.items():
            file.create_dataset(name, data=np.concatenate(parts), track_times=False)
        file.attrs.update(attributes)
