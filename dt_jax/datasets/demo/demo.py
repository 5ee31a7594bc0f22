"""The demo datasets, which need no download: they are collected where they are used."""

import shutil
import sys
from pathlib import Path

from dt_jax.data.registry import EnvSpec, all_specs
from dt_jax.datasets.demo import antmaze, locomotion, maze2d
from dt_jax.datasets.demo.episodes import Episode, write_d4rl
from dt_jax.datasets.demo.progress import progress
from dt_jax.utils.errors import UserError, did_you_mean
from dt_jax.utils.files import try_to_write

_STEPS = {
    "halfcheetah": 200_000,
    "hopper": 200_000,
    "walker2d": 100_000,
    "maze2d": 200_000,
    "antmaze": 200_000,
}
# By `EnvSpec.engine`.
_COLLECTORS = {"locomotion": locomotion, "maze2d": maze2d, "antmaze": antmaze}


def collect_demo(
    env_name: str, out: Path, *, steps: int | None = None, seed: int = 0
) -> list[list[Episode]]:
    """Collect a demo dataset into a file of D4RL's schema, with progress on stderr.

    Args:
      env_name: "hopper-demo", "maze2d-umaze-demo", "antmaze-umaze-demo", ...
      out: the file; the same bytes for the same name, steps and seed.
      steps: how many transitions at least; only whole episodes are collected, so that
        there will be a few more.
      seed: not negative.

    Returns:
      The episodes of each level of skill, the worst level first: the order in the
      file. The mazes' controllers have one level.

    Raises:
      UserError: there is no demo dataset of that name, a number is out of range, or
        `out` can't be written to.
    """
    spec = _demo_spec(env_name)
    steps = _STEPS[spec.family] if steps is None else steps
    if steps < 4:
        raise UserError(f"steps is {steps}; at least 4 are needed")
    if not 0 <= seed < 2**31:
        raise UserError(f"seed is {seed}; it must lie between 0 and {2**31 - 1}")
    size = steps * _bytes_a_row(spec)
    _check_out(out, size)
    print(
        f"collecting {steps:,} transitions, {size / 1e6:.3g} MB, into {out}",
        file=sys.stderr,
    )
    collector = _COLLECTORS[spec.engine]
    with progress(env_name, steps) as advance:
        levels = collector.collect(spec, steps, seed, advance)
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


def _check_out(out: Path, size: int) -> None:
    """Refuse, before the work, a place that could not be written to after it."""
    if out.is_dir() or not out.name:
        raise UserError(f"{out} is a folder: name a file to write to")
    if out.exists() and not out.is_file():
        raise UserError(f"{out} is no ordinary file: name another to write to")
    try:
        try_to_write(out)
        free = shutil.disk_usage(out.parent).free
    except OSError as error:
        raise UserError(
            f"{out} can't be written to ({error.strerror}): name another file"
        ) from None
    if size > free:
        raise UserError(
            f"{out} takes {size:,} bytes, and {free:,} are free there: make room, or "
            "name a file elsewhere"
        )


def _bytes_a_row(spec: EnvSpec) -> int:
    """Return what a transition takes in the file."""
    numbers = 4 * (spec.observation_size + spec.action_size + 1)
    if spec.maze:  # keeps the state and the goal, in float64
        numbers += 8 * (spec.observation_size + 2)
    return numbers + 2  # terminals, timeouts


def _demo_spec(env_name: str) -> EnvSpec:
    """Return the demo dataset of that name."""
    demos = {name: spec for name, spec in all_specs().items() if spec.is_demo}
    if env_name not in demos:
        hint = did_you_mean(env_name, demos)
        raise UserError(f"unknown demo dataset {env_name!r}; {hint}")
    return demos[env_name]
