"""Film a trained run: python -m dt_jax video runs/hopper --out=hopper.mp4."""

import math
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.experimental import io_callback
from rich.console import Console
from rich.progress import track

from dt_jax import envs
from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.cli.common import CommandParser
from dt_jax.cli.evaluate import chosen
from dt_jax.data.registry import DatasetSpec
from dt_jax.envs.base import EnvState, HostEnv
from dt_jax.rollout.rollout import make_rollout
from dt_jax.types import Array, Params, Step
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import remove_leftovers, replacing, try_to_write, user_path
from dt_jax.video.film import FPS, captioned, check_format, write
from dt_jax.video.rendering import view
from dt_jax.video.view import Size, View

# What may be other than in the run's configuration, beside env_name: key -> flag.
_CHANGES = {
    "target_returns": "--target_return",
    "eval_episodes": "--episodes",
    "eval_seed": "--seed",
    "device": "--device",
}
_SIZES = range(64, 4097, 2)  # pixels; H.264 has no odd numbers of them
_HOLD = 1.0  # seconds that the last picture of an episode stays


@dataclass(frozen=True)
class Episode:
    """One episode as it was played.

    Attributes:
      target_return: what was asked for.
      seed: the environment's.
      actions: [T, A], the network's.
      achieved: the sum of its rewards.
    """

    target_return: float
    seed: int
    actions: np.ndarray
    achieved: np.float32


def play(
    agent: DecisionTransformerAgent,
    params: Params,
    spec: DatasetSpec,
    target_returns: Sequence[float],
    seeds: Sequence[int],
) -> list[Episode]:
    """Play as evaluation does, all episodes at once, and keep the actions.

    Args:
      agent: the run's.
      params: the network's parameters, of one seed.
      spec: the environment.
      target_returns: K of them, in the environment's units.
      seeds: E, the same at every target.

    Returns:
      K * E episodes, the first target's first.

    Raises:
      UserError: the policy or the environment gave something that is no number.
    """
    each = [(target, seed) for target in target_returns for seed in seeds]
    env = _Recorded(envs.make(spec, [seed for _, seed in each]))
    rollout = make_rollout(agent, env, agent.model.episode_len)
    asked = np.array([target for target, _ in each], np.float32)
    played = jax.device_get(rollout(params, *env.env.reset(), asked))
    env.env.check()
    actions = np.array(env.actions)  # [T, N, A]
    return [
        Episode(target, seed, actions[: played.lengths[i], i], played.returns[i])
        for i, (target, seed) in enumerate(each)
    ]


class _Recorded:
    """An environment whose actions are kept."""

    def __init__(self, env: HostEnv):
        self.env = env
        self.actions: list[np.ndarray] = []

    def step(self, state: EnvState, actions: Array) -> tuple[EnvState, Step]:
        """Advance each episode by one action [N, A], from inside a compiled program."""
        shapes = self.env.all_over()
        return state, io_callback(self._step, shapes, actions, ordered=True)

    def _step(self, actions: Array) -> Step:
        self.actions.append(np.array(actions))
        return self.env.callback(actions)


def frames(
    episode: Episode, seen: View, every: int, size: Size, heading: str = ""
) -> Iterator[np.ndarray]:
    """Play an episode's actions again and yield [height, width, 3] uint8 pictures.

    Args:
      episode: which.
      seen: of its environment and seed.
      every: how many steps lie between two pictures.
      size: width and height.
      heading: what else to write into each.

    Raises:
      UserError: the same seed and actions earn something else this time.
    """
    observation = seen.env.host_reset()[0]
    seen.begin(observation)
    achieved = np.float32(0)

    def picture(step: int) -> np.ndarray:
        texts = [f"target {episode.target_return:g}", f"return {achieved:.1f}"]
        texts += [f"step {step}", *([heading] if heading else [])]
        if seen.has_goal and achieved > 0:
            texts.append("goal reached")
        return captioned(seen.frame(observation), texts, size)

    yield picture(0)
    for step, action in enumerate(episode.actions, 1):
        answer = seen.env.host_step(action[None])
        observation = np.asarray(answer.observations[0])
        seen.follow(observation)
        achieved += np.float32(answer.rewards[0])
        if step % every == 0 or step == len(episode.actions):
            yield picture(step)
    if achieved != episode.achieved:
        raise UserError(
            f"the environment does not repeat itself: the same seed and actions earned "
            f"{episode.achieved:g} and then {achieved:g}, so that no film shows what "
            "was played"
        )


def main(arguments: Sequence[str]) -> None:
    """Film the episodes that the command line asks for."""
    args = _parser().parse_args(arguments)
    out, size = user_path(args.out), (args.width, args.height)
    check_format(out)
    most = FPS[out.suffix.lower()] if args.fps is None else args.fps
    _check_numbers(args, most)
    config, spec, agent, params, _ = chosen(args, _CHANGES)
    targets = config.target_returns
    if args.target_returns is None:
        targets = (max(targets),)
    if config.num_seeds > 1:
        params = jax.tree.map(lambda x: x[0], params)
    seeds = envs.episode_seeds(config.eval_seed, config.eval_episodes)
    try_to_write(out)
    remove_leftovers(out)
    with closing(
        view(spec, seeds[0], size)
    ) as seen:  # or it fails here, before it plays
        every, fps = pace(seen.step_seconds, args.speed, most)

    episodes = play(agent, params, spec, targets, seeds)
    for episode in episodes:
        print(
            f"target {episode.target_return:g}, seed {episode.seed}: "
            f"return {episode.achieved:.1f} in {len(episode.actions)} steps",
            flush=True,
        )
    hold = round(_HOLD * fps)
    total = sum(1 + -(-len(e.actions) // every) + hold for e in episodes)
    film = _film(episodes, spec, every, size, hold)
    console = Console(stderr=True)
    quiet = not console.is_terminal
    shown = track(
        film, "drawing", total, console=console, transient=True, disable=quiet
    )
    with replacing(out) as temporary:
        write(temporary, shown, fps, size)
    print(f"{out}: {total} pictures, {fps:.3g} a second, {out.stat().st_size:,} bytes")


def pace(step_seconds: float, speed: float, most: float) -> tuple[int, float]:
    """Return how many steps lie between two pictures, and the pictures a second.

    Args:
      step_seconds: how long a step takes in the simulated world.
      speed: how many of its seconds go by in one of ours.
      most: pictures a second at most.
    """
    steps_a_second = speed / step_seconds
    every = max(1, math.ceil(steps_a_second / most - 1e-9))
    return every, steps_a_second / every


def _film(
    episodes: Sequence[Episode], spec: DatasetSpec, every: int, size: Size, hold: int
) -> Iterator[np.ndarray]:
    """Yield the pictures of all episodes; each one's last is there for `hold` more."""
    for i, episode in enumerate(episodes, 1):
        heading = f"episode {i} of {len(episodes)}" if len(episodes) > 1 else ""
        with closing(view(spec, episode.seed, size)) as seen:
            for picture in frames(episode, seen, every, size, heading):
                yield picture
        yield from [picture] * hold


def _check_numbers(args: Namespace, most: float) -> None:
    """Raise a UserError where a number makes no film."""
    for flag, value in (("--width", args.width), ("--height", args.height)):
        if value not in _SIZES:
            raise UserError(f"{flag}={value}: expected an even number, 64 to 4096")
    for flag, number in (("--fps", most), ("--speed", args.speed)):
        if not 0 < number <= 1000:
            raise UserError(f"{flag}={number:g}: expected a number from 0 to 1000")


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m dt_jax video",
        description="Film episodes of a checkpoint of a run, one after the other, as "
        "evaluation plays them.",
        epilog="example: python -m dt_jax video runs/hopper --target_return=3600 "
        "--out=film.mp4",
    )
    parser.add_argument("workdir", type=Path, help="the run's folder")
    parser.add_argument("--out", required=True, type=Path, help="an .mp4 or a .gif")
    parser.add_argument(
        "--target_return",
        dest="target_returns",
        help="what to ask for, or several, such as 3600,1800; the highest that the run "
        "was evaluated at, if not given",
    )
    parser.add_argument(
        "--episodes",
        dest="eval_episodes",
        default="1",
        help="for each target (default: 1)",
    )
    parser.add_argument(
        "--seed", dest="eval_seed", help="from which each episode gets its own"
    )
    parser.add_argument("--env_name", help="in whose environment")
    parser.add_argument(
        "--checkpoint", default="last", help="last (the default), best or a step"
    )
    parser.add_argument("--device", help="auto (the default), cpu, gpu or tpu")
    parser.add_argument(
        "--speed", type=float, default=1.0, help="1 (the default) is as in the world"
    )
    parser.add_argument(
        "--fps",
        type=float,
        help="pictures a second at most (default: 30, and 10 in a .gif); steps between "
        "are left out",
    )
    parser.add_argument("--width", type=int, default=480, help="pixels (default: 480)")
    parser.add_argument("--height", type=int, default=480, help="pixels (default: 480)")
    return parser
