"""Episodes of a policy: played as evaluation does, then replayed to render them."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import io_callback

from dt_jax import envs
from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.data.registry import EnvSpec
from dt_jax.envs.base import EnvState, HostEnv
from dt_jax.rollout.rollout import make_rollout
from dt_jax.types import Array, Params, Step
from dt_jax.utils.errors import UserError
from dt_jax.video import make_view
from dt_jax.video.film import add_caption
from dt_jax.video.view import Size, View


@dataclass(frozen=True)
class Episode:
    """A recorded episode.

    Attributes:
      target_return: the prompt, in the environment's units.
      seed: the environment's.
      actions: [T, A], as the policy returned them.
      achieved_return: the sum of the rewards.
    """

    target_return: float
    seed: int
    actions: np.ndarray
    achieved_return: np.float32


def play(
    agent: DecisionTransformerAgent,
    params: Params,
    spec: EnvSpec,
    target_returns: Sequence[float],
    seeds: Sequence[int],
) -> list[Episode]:
    """Play all episodes at once, as evaluation does, and record the actions.

    Args:
      agent: the run's agent.
      params: the network's parameters, of one training seed.
      spec: the environment.
      target_returns: K of them, in the environment's units.
      seeds: E, the same for every target.

    Returns:
      K * E episodes, those of the first target first.

    Raises:
      UserError: an action, observation or reward is not finite, or the environment
        fails.
    """
    pairs = [(target, seed) for target in target_returns for seed in seeds]
    recorder = _ActionRecorder(envs.make(spec, [seed for _, seed in pairs]))
    rollout = make_rollout(agent, recorder, agent.model.episode_len)
    prompts = np.array([target for target, _ in pairs], np.float32)
    played = jax.device_get(rollout(params, *recorder.env.reset(), prompts))
    recorder.env.check()
    actions = np.array(recorder.actions)  # [T, N, A]
    return [
        Episode(target, seed, actions[: played.lengths[i], i], played.returns[i])
        for i, (target, seed) in enumerate(pairs)
    ]


class _ActionRecorder:
    """An environment that records its actions."""

    def __init__(self, env: HostEnv):
        self.env = env
        self.actions: list[np.ndarray] = []

    def step(self, state: EnvState, actions: Array) -> tuple[EnvState, Step]:
        """Advance each episode by one action [N, A], inside a compiled program."""
        shapes = self.env.failed_step()
        return state, io_callback(self._step, shapes, actions, ordered=True)

    def _step(self, actions: Array) -> Step:
        self.actions.append(np.array(actions))
        return self.env.callback(actions)


def frame_rate(step_seconds: float, speed: float, max_fps: float) -> tuple[int, float]:
    """Return the number of steps per frame, and the frames per second.

    Args:
      step_seconds: the simulated time of a step.
      speed: simulated seconds per second of the video.
      max_fps: the maximum of frames per second.
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

    Args:
      episodes: as `play` returned them.
      spec: their environment.
      steps_per_frame: the number of steps between two frames.
      size: width and height.
      hold: how many times the last frame of an episode is repeated.

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
      size: width and height.
      heading: further text for the captions.

    Raises:
      UserError: the replay's return differs from the recorded one.
    """
    observation = view.env.host_reset()[0]
    view.start_episode(observation)
    achieved = np.float32(0)

    def frame(step: int) -> np.ndarray:
        texts = [f"target {episode.target_return:g}", f"return {achieved:.1f}"]
        texts += [f"step {step}", *([heading] if heading else [])]
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
