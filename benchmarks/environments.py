"""Validation of the environments against D4RL's, and their speed.

  python benchmarks/environments.py [--episodes=100] [--families=maze2d,antmaze] \
      [--dapg=FOLDER] [--noise_free]

Prints a Markdown table: the mean return ± standard error of a uniformly random policy
and of a good one, each with a reference, and steps per second. Good policies are

- halfcheetah, hopper and walker2d: the best bundled policies, without noise;
- Adroit: DAPG's experts, if FOLDER contains them (see dapg.py), with the noise of their
  data or without;
- maze2d: D4RL's controller, sent to the goal after each reset;
- antmaze: the bundled controller on a shortest path to the goal of each episode, with
  the noise of the demo datasets.

The references were measured with other implementations of the same environments, over
64 to 256 episodes; a bundled policy's is stored in its file.

Steps per second count unfinished episodes in the time of the environment only, for
whichever of the two policies took more of them. On plain MuJoCo the random policy plays
once more with one thread; "ratio" is all cores to one thread.
"""

import argparse
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import dapg
import numpy as np

from dt_jax import envs
from dt_jax.data.registry import EnvSpec, lookup, normalized_score
from dt_jax.datasets.demo.ant_controller import AntController
from dt_jax.datasets.demo.antmaze import ACTION_NOISE, Followers
from dt_jax.datasets.demo.locomotion import LEVELS, LinearPolicy
from dt_jax.datasets.demo.maze2d import WaypointController
from dt_jax.envs import mazes
from dt_jax.envs.adroit import AdroitEnv
from dt_jax.envs.antmaze import AntMaze, center
from dt_jax.envs.base import HostEnv, usable_cores
from dt_jax.envs.maze2d import Maze2D

# dataset -> reference of the random policy, and of the good one
ENVIRONMENTS = {
    "halfcheetah-medium-v2": ("-288.1 ± 5.1", "4054"),
    "hopper-medium-v2": ("18.56 ± 1.16", "3390"),
    "walker2d-medium-v2": ("3.33 ± 0.42", "2273"),
    "pen-expert-v1": ("66.8 ± 28", "score 100.8"),
    "door-expert-v1": ("-56.52 ± 0.08", "score 100.5"),
    "hammer-expert-v1": ("-274.6 ± 0.7", "score 115.1"),
    "relocate-expert-v1": ("-7.6 ± 0.5", "score 98.9"),
    "maze2d-umaze-v1": ("29.4", "225.0 ± 5.6"),
    "maze2d-medium-v1": ("14.9", "418.5 ± 8.2"),
    "maze2d-large-v1": ("12.0", "551.8 ± 11.8"),
    "antmaze-umaze-v2": ("none", "12 of 12, 150 to 198 steps"),
    "antmaze-medium-play-v2": ("none", "none"),
    "antmaze-large-play-v2": ("none", "none"),
}
HEADER = """\
| environment | random policy | reference | D4RL's ref_min | controller or expert \
| reference | steps/s | one thread | ratio |
|---|---|---|---|---|---|---|---|---|"""

Act = Callable[[np.ndarray], np.ndarray]  # observations [N, S] -> actions [N, A]


class Played(NamedTuple):
    """Results of N episodes."""

    returns: np.ndarray  # [N]
    lengths: np.ndarray  # [N]
    speed: float  # steps per second


def main() -> None:
    """Evaluate both policies in every environment and print its row."""
    specs = [lookup(name) for name in ENVIRONMENTS]
    families = list(dict.fromkeys(spec.family for spec in specs))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--families", default=",".join(families))
    parser.add_argument("--dapg", type=Path, help="folder with the Adroit experts")
    parser.add_argument(
        "--noise_free", action="store_true", help="without the experts' noise"
    )
    args = parser.parse_args()
    chosen = args.families.split(",")
    if args.episodes < 2:
        parser.error(f"--episodes={args.episodes}: expected at least 2")
    if unknown := set(chosen) - set(families):
        parser.error(f"unknown families {sorted(unknown)}; known: {families}")

    print(f"{args.episodes} episodes, {usable_cores()} cores\n\n{HEADER}")
    for spec in specs:
        if spec.family in chosen:
            print(f"| {' | '.join(row(spec, args))} |", flush=True)


def row(spec: EnvSpec, args: Namespace) -> list[str]:
    """Return the cells of one environment."""
    name, seeds = spec.family, envs.episode_seeds(0, args.episodes)
    env = envs.make(spec, seeds)
    by_chance = longer = play(env, random_policy(env))
    good, one_thread, ratio = "needs --dapg", "", ""
    if args.dapg or not isinstance(env, AdroitEnv):
        played = play(env, good_policy(spec, env, args))
        longer = max(by_chance, played, key=lambda one: one.lengths.sum())
        good = cell(played.returns)
        if isinstance(env, AdroitEnv):
            good += f", score {cell(normalized_score(spec, played.returns))}"
        if isinstance(env, AntMaze) and played.returns.any():
            took = played.lengths[played.returns > 0]
            good += f", {took.min()} to {took.max()} steps"
    if spec.maze:
        name += f"-{spec.maze}"
        limit = spec.max_episode_steps
        single = type(env)(spec.maze, seeds, limit, num_threads=1)
        slower = play(single, random_policy(single))
        one_thread = f"{slower.speed:,.0f}"
        ratio = f"{by_chance.speed / slower.speed:.2f}"
    reference, good_reference = ENVIRONMENTS[spec.name]
    scale = [reference, f"{spec.ref_min:.2f}"]
    speeds = [f"{longer.speed:,.0f}", one_thread, ratio]
    return [name, cell(by_chance.returns), *scale, good, good_reference, *speeds]


def play(env: HostEnv, act: Act) -> Played:
    """Play every episode until it ends."""
    observations, seconds = env.host_reset(), 0.0
    returns, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, int)
    running = np.ones(env.num_envs, bool)
    while running.any():
        actions = act(observations)
        start = time.perf_counter()
        observations, rewards, done = env.host_step(actions)
        seconds += time.perf_counter() - start
        returns += running * rewards
        lengths += running
        running &= ~done
    return Played(returns, lengths, lengths.sum() / seconds)


def random_policy(env: HostEnv) -> Act:
    """Return a policy that draws each action uniformly from -1 to 1."""
    rng = np.random.default_rng(1)
    return lambda _: rng.uniform(-1, 1, (env.num_envs, env.action_size))


def good_policy(spec: EnvSpec, env: Any, args: Namespace) -> Act:
    """Return the controller or expert for the episodes that `env` resets to."""
    rng, starts = np.random.default_rng(2), env.host_reset()
    if isinstance(env, AdroitEnv):
        expert = dapg.load(args.dapg / f"dapg_{spec.family}.npz")
        if args.noise_free:
            expert["log_std"] = np.full_like(expert["log_std"], -np.inf)
        return lambda observations: dapg.act(expert, observations, rng)
    if isinstance(env, Maze2D):
        maze = mazes.maze2d(spec.maze)
        controller = WaypointController(maze, env.num_envs, rng)
        for i, start in enumerate(starts):
            controller.send(i, start[:2], maze.goal)
        return controller.act
    if isinstance(env, AntMaze):
        return ant_controller(spec, env.goals, rng)
    return LinearPolicy(spec.family, LEVELS - 1, 0.0, rng).act


def ant_controller(spec: EnvSpec, goals: np.ndarray, rng: np.random.Generator) -> Act:
    """Return a policy that walks along the cells of a maze to `goals` [N, 2]."""
    maze = mazes.antmaze(spec.maze)
    between = [center(maze, cell) for cell in maze.path(maze.start, maze.goal)[1:-1]]
    followers = Followers([np.array([*between, goal]) for goal in goals])
    controller = AntController()

    def act(observations: np.ndarray) -> np.ndarray:
        directions = followers.directions(observations[:, :2])
        actions = controller.act(observations.astype(np.float64), directions)
        return actions + ACTION_NOISE * rng.standard_normal(actions.shape)

    return act


def cell(values: np.ndarray) -> str:
    """Format a mean and its standard error."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    digits = 2 if error < 0.5 else 1
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


if __name__ == "__main__":
    main()
