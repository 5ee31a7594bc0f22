"""The demo datasets: the bundled policies of one body, in equal shares of steps.

Mean return ± standard deviation of 128 episodes, by level and by the standard deviation
of the action noise:

              noise   level 1      level 2       level 3       level 4
halfcheetah   0       401 ± 4      1686 ± 23     2894 ± 29     3944 ± 633
              0.02    384 ± 5      1663 ± 149    2854 ± 254    3948 ± 522
              0.05    309 ± 14     1629 ± 33     2768 ± 365    3702 ± 779
              0.1     165 ± 27     1295 ± 413    1830 ± 968    3001 ± 1006
hopper        0       393 ± 5      1219 ± 4      2340 ± 307    3387 ± 12
              0.02    393 ± 5      1253 ± 81     2324 ± 387    3360 ± 164
              0.05    392 ± 6      1261 ± 167    2062 ± 523    3233 ± 431
              0.1     390 ± 7      1152 ± 186    1892 ± 562    2726 ± 842
walker2d      0       393 ± 4      510 ± 6       751 ± 7       2217 ± 186
              0.02    393 ± 4      510 ± 6       764 ± 42      2176 ± 264
              0.05    392 ± 5      510 ± 6       773 ± 92      1654 ± 831
              0.1     378 ± 53     392 ± 170     607 ± 237     454 ± 562

HalfCheetah's wide spreads are a few per cent of episodes in which it turns over.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from dt_jax import envs
from dt_jax.collect.episodes import Episode, run_episodes, write_d4rl
from dt_jax.collect.policies import LEVELS, LinearPolicy
from dt_jax.errors import UserError, did_you_mean
from dt_jax.registry import DatasetSpec, all_specs

_NOISE = 0.02  # see above: the levels stay apart, and no two episodes are the same
_STEPS = {"halfcheetah": 200_000, "hopper": 200_000, "walker2d": 100_000}


def collect_demo(
    env_name: str, out: Path, *, steps: int | None = None, seed: int = 0
) -> list[list[Episode]]:
    """Collect a demo dataset into a file of D4RL's schema, with progress on stderr.

    Args:
      env_name: "hopper-demo", "halfcheetah-demo" or "walker2d-demo".
      out: the file; the same bytes for the same name, steps and seed.
      steps: how many transitions at least, a quarter of them from each level; only
        whole episodes are collected, so that there will be a few more.
      seed: not negative.

    Returns:
      The episodes of each level, the worst level first: the order in the file.

    Raises:
      UserError: there is no demo dataset of that name, or a number is out of range.
    """
    spec = _demo_spec(env_name)
    steps = _STEPS[spec.family] if steps is None else steps
    if steps < LEVELS:
        raise UserError(f"steps is {steps}; at least {LEVELS}, one for each level")
    if not 0 <= seed < 2**31:
        raise UserError(f"seed is {seed}; it must lie between 0 and {2**31 - 1}")
    if out.is_dir() or not out.name:
        raise UserError(f"{out} is a folder: name a file to write to")
    out.parent.mkdir(parents=True, exist_ok=True)  # or fail before the work
    share = -(-steps // LEVELS)
    with _progress(env_name, LEVELS * share) as advance:
        levels = [
            _collect_level(spec, level, share, seed, advance) for level in range(LEVELS)
        ]
    write_d4rl(
        out,
        [episode for level in levels for episode in level],
        spec.max_episode_steps,
        {"env_name": env_name, "seed": seed, "steps": steps, "action_noise": _NOISE},
    )
    return levels


def _demo_spec(env_name: str) -> DatasetSpec:
    """Return the demo dataset of that name."""
    demos = {name: spec for name, spec in all_specs().items() if spec.is_demo}
    if env_name not in demos:
        hint = did_you_mean(env_name, demos)
        raise UserError(f"unknown demo dataset {env_name!r}; {hint}")
    return demos[env_name]


def _collect_level(
    spec: DatasetSpec,
    level: int,
    share: int,
    seed: int,
    advance: Callable[[int], None],
) -> list[Episode]:
    """Collect whole episodes of one level, until they have `share` steps or more."""
    stream = (seed, level + 1)  # not 0: SeedSequence would ignore it
    noise = np.random.default_rng((*stream, 1))
    policy = LinearPolicy(spec.family, level, _NOISE, noise)
    episodes: list[Episode] = []
    missing = share
    while missing > 0:
        # This many episodes are needed however long they are, so none is thrown away.
        batch = -(-missing // spec.max_episode_steps)
        seeds = envs.episode_seeds(stream, len(episodes) + batch)[len(episodes) :]
        new = run_episodes(envs.make(spec, seeds), policy)
        collected = sum(len(episode.rewards) for episode in new)
        advance(min(collected, missing))
        missing -= collected
        episodes += new
    return episodes


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many transitions are there: a bar on a terminal, else plain lines."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console) as bar:
            task = bar.add_task(f"collecting {name}", total=total)
            yield lambda steps: bar.advance(task, steps)
        return
    done = shown = 0

    def advance(steps: int) -> None:
        nonlocal done, shown
        done += steps
        if done - shown >= total / LEVELS or done == total:
            shown = done
            line = f"collecting {name}: {done:,} of {total:,} transitions"
            print(line, file=sys.stderr, flush=True)

    yield advance
