"""Episodes of a policy: played as evaluation does, then replayed to render them."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from dt_jax import envs
from dt_jax.agents.base import Agent
from dt_jax.data.registry import EnvSpec
from dt_jax.rollout.rollout import Rollout
from dt_jax.types import Params
from dt_jax.utils.errors import UserError
from dt_jax.video import make_view
from dt_jax.video.film import add_caption
from dt_jax.video.view import Size, View


@dataclass(frozen=True)
class Episode:
    """A recorded episode, in the environment's units."""

    target_return: float | None  # None if the agent has none
    seed: int  # of the environment
    actions: np.ndarray  # [T, A]
    achieved_return: np.float32


def play(
    agent: Agent,
    params: Params,
    spec: EnvSpec,
    target_returns: Sequence[float] | None,
    seeds: Sequence[int],
    max_envs: int | None = None,
) -> list[Episode]:
    """Play all episodes at once, as evaluation does, and record the actions.

    Args:
      agent: the run's agent.
      params: its acting parameters, of one training seed.
      spec: the environment.
      target_returns: K of them, in the environment's units; None for an agent that is
        not conditioned on one, for which K is 1.
      seeds: E, the same for every target return.
      max_envs: so many episodes at once; None: all.

    Returns:
      K * E episodes, those of the first target return first.

    Raises:
      UserError: an action, observation or reward is not finite, or the environment
        fails.
    """
    targets: Sequence[float | None] = target_returns or [None]
    pairs = [(target, seed) for target in targets for seed in seeds]
    at_once = min(max_envs or len(pairs), len(pairs))
    episodes = []
    with closing(envs.make(spec, list(seeds[:1]) * at_once)) as env:
        rollout = Rollout(agent, env, agent.episode_len, record=True)
        for first in range(0, len(pairs), at_once):
            part = pairs[first : first + at_once]
            padded = part + pairs[: at_once - len(part)]  # one program for all parts
            env.seeds = [seed for _, seed in padded]
            keys = jax.vmap(jax.random.key)(jnp.asarray(env.seeds))
            prompts = None
            if target_returns is not None:
                prompts = np.array([target for target, _ in padded], np.float32)
            played = jax.device_get(rollout(params, *env.reset(), prompts, keys))
            env.check()
            actions = played.recording.actions  # [T, N, A]
            episodes += [
                Episode(
                    target, seed, actions[: played.lengths[i], i], played.returns[i]
                )
                for i, (target, seed) in enumerate(part)
            ]
    return episodes


def frame_rate(step_seconds: float, speed: float, max_fps: float) -> tuple[int, float]:
    """Return the number of steps per frame, and the frames per second.

    `speed` is in simulated seconds per second of the video.
    """
    steps_per_second = speed / step_seconds
    steps_per_frame = max(1, math.ceil(steps_per_second / max_fps - 1e-9))
    return steps_per_frame, steps_per_second / steps_per_frame


def render_episodes(
    episodes: Sequence[Episode],
    spec: EnvSpec,
    steps_per_frame: int,
    size: Size,
    hold: int,
) -> Iterator[np.ndarray]:
    """Yield the frames of all episodes in turn, [height, width, 3] uint8.

    The last frame of an episode is repeated `hold` times.

    Raises:
      UserError: an episode cannot be reproduced, or not be rendered.
    """
    for i, episode in enumerate(episodes, 1):
        heading = f"episode {i} of {len(episodes)}" if len(episodes) > 1 else ""
        with closing(make_view(spec, episode.seed, size)) as view:
            for frame in render_episode(episode, view, steps_per_frame, size, heading):
                yield frame
        yield from [frame] * hold


def render_episode(
    episode: Episode, view: View, steps_per_frame: int, size: Size, heading: str = ""
) -> Iterator[np.ndarray]:
    """Replay an episode's actions and yield frames, [height, width, 3] uint8.

    Args:
      episode: the episode.
      view: of its environment and seed.
      steps_per_frame: the number of steps between two frames.
      size: of the frames.
      heading: further text for the captions.

    Raises:
      UserError: the replay's return differs from the recorded one.
    """
    observation = view.env.host_reset()[0]
    view.start_episode(observation)
    achieved = np.float32(0)

    def frame(step: int) -> np.ndarray:
        texts = [f"return {achieved:.1f}", f"step {step}"]
        if episode.target_return is not None:
            texts.insert(0, f"target {episode.target_return:g}")
        if heading:
            texts.append(heading)
        if view.has_goal and achieved > 0:
            texts.append("goal reached")
        return add_caption(view.render(observation), texts, size)

    yield frame(0)
    for step, action in enumerate(episode.actions, 1):
        result = view.env.host_step(action[None])
        observation = np.asarray(result.observations[0])
        view.track(observation)
        achieved += np.float32(result.rewards[0])
        if step % steps_per_frame == 0 or step == len(episode.actions):
            yield frame(step)
    if achieved != episode.achieved_return:
        raise UserError(
            "the environment is not deterministic: the same seed and actions returned "
            f"{episode.achieved_return:g}, then {achieved:g}; a video would not show "
            "what was played"
        )
