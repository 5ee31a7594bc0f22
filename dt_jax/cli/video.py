"""Render episodes of a run: python -m dt_jax video runs/hopper --out=hopper.mp4."""

from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.progress import track

from dt_jax import envs
from dt_jax.cli.common import CommandParser
from dt_jax.cli.evaluate import ENV_FLAGS, add_run_flags, load_for_command
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import atomic_write, check_writable, remove_leftovers, user_path
from dt_jax.video import make_view
from dt_jax.video.film import MAX_FPS, check_format, write
from dt_jax.video.play import frame_rate, play, render_episodes

# Keys of the run's configuration, and the flags that change them.
_FLAGS = {
    **ENV_FLAGS,
    "target_returns": "--target_return",
    "eval_episodes": "--episodes",
    "eval_seed": "--seed",
}
_SIZES = range(64, 4097, 2)  # pixels; H.264 needs even numbers
_HOLD = 1.0  # seconds for which the last frame of an episode is shown


def main(arguments: Sequence[str]) -> None:
    """Play, render and write the episodes that the command line selects."""
    args = _parser().parse_args(arguments)
    # Absolute, because an environment may change the working folder.
    out, size = user_path(args.out).absolute(), (args.width, args.height)
    check_format(out)
    max_fps = MAX_FPS[out.suffix.lower()] if args.fps is None else args.fps
    _check_numbers(args, max_fps)
    run = load_for_command(args, _FLAGS)
    spec, agent = run.spec, run.trained.agent
    targets = run.config.target_returns if agent.conditioned else None
    if targets and args.target_returns is None:
        targets = (max(targets),)
    seeds = envs.episode_seeds(run.config.eval_seed, run.config.eval_episodes)
    check_writable(out)
    remove_leftovers(out)
    # Rendering fails here, before the episodes are played, if it does not work.
    with closing(make_view(spec, seeds[0], size)) as view:
        steps_per_frame, fps = frame_rate(view.step_seconds, args.speed, max_fps)

    params = run.trained.seed_params(None)
    episodes = play(agent, params, spec, targets, seeds, run.config.max_envs)
    for episode in episodes:
        target = f"target {episode.target_return:g}, " if targets else ""
        print(
            f"{target}seed {episode.seed}: "
            f"return {episode.achieved_return:.1f} in {len(episode.actions)} steps",
            flush=True,
        )
    hold = round(_HOLD * fps)
    total = sum(1 + -(-len(e.actions) // steps_per_frame) + hold for e in episodes)
    frames = render_episodes(episodes, spec, steps_per_frame, size, hold)
    console = Console(stderr=True)
    quiet = not console.is_terminal
    progress = track(
        frames, "rendering", total, console=console, transient=True, disable=quiet
    )
    with atomic_write(out) as temporary:
        written = write(temporary, progress, fps)
    print(
        f"{out}: {written} frames, {fps:.3g} per second, {out.stat().st_size:,} bytes"
    )


def _check_numbers(args: Namespace, max_fps: float) -> None:
    """Raise a UserError if a size, frame rate or speed is out of range."""
    for flag, value in (("--width", args.width), ("--height", args.height)):
        if value not in _SIZES:
            raise UserError(f"{flag}={value}: expected an even number from 64 to 4096")
    for flag, number in (("--fps", max_fps), ("--speed", args.speed)):
        if not 0.01 <= number <= 1000:
            raise UserError(f"{flag}={number:g}: expected a number from 0.01 to 1000")


def _parser() -> CommandParser:
    parser = CommandParser(
        command="video",
        description="Render episodes of a run's checkpoint, played as in evaluation.",
        example="runs/hopper --target_return=3600 --out=film.mp4",
    )
    add_run_flags(parser)
    parser.add_argument(
        "--out", required=True, type=Path, help="the file to write, .mp4 or .gif"
    )
    parser.add_argument(
        "--target_return",
        dest="target_returns",
        help="target return, or several: 3600,1800 (default: the highest of the run)",
    )
    parser.add_argument(
        "--episodes",
        dest="eval_episodes",
        default="1",
        help="episodes per target return (default: 1)",
    )
    parser.add_argument(
        "--seed",
        dest="eval_seed",
        help="seed of the environments (default: the run's eval_seed)",
    )
    parser.add_argument(
        "--speed",
        type=float,
        default=1.0,
        help="simulated seconds per second (default: 1)",
    )
    parser.add_argument(
        "--fps",
        type=float,
        help="maximum of frames per second; further steps are skipped (default: 30, "
        "or 10 for a .gif)",
    )
    parser.add_argument("--width", type=int, default=480, help="pixels (default: 480)")
    parser.add_argument("--height", type=int, default=480, help="pixels (default: 480)")
    return parser
