"""Evaluation: episodes of a policy at several target returns."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dt_jax import envs
from dt_jax.agents.base import Agent
from dt_jax.agents.multi_seed import MultiSeedAgent
from dt_jax.data.registry import NO_LIMIT, EnvSpec, normalized_score
from dt_jax.rollout.rollout import Rollout
from dt_jax.runs.evaluations import Evaluation
from dt_jax.types import Params
from dt_jax.utils import distributed
from dt_jax.utils.errors import UserError

_MIN_EPISODES = 8  # from which two halves are faster than one: docs/parity.md


class Evaluator:
    """Plays all episodes of all target returns at once, on one device per process."""

    def __init__(
        self,
        agent: Agent,
        spec: EnvSpec,
        target_returns: Sequence[float] | None,
        episodes: int,
        seed: int,
        num_seeds: int = 1,
    ):
        """Build an environment for each episode.

        Each process plays an equal share of the episodes. A large share is played in
        two halves: the environments of one step while the network acts for the other.

        Args:
          agent: whose parameters are evaluated.
          spec: the environment and the reference returns of its score.
          target_returns: K of them, in the environment's units; None for an agent that
            is not conditioned on one.
          episodes: E, for each target return.
          seed: from which each of the E episodes gets its own.
          num_seeds: S; with more than one, parameters have a leading axis of seeds.

        Raises:
          UserError: the environment cannot be built.
        """
        self._spec = spec
        self._conditioned = target_returns is not None
        self._targets = np.asarray(
            [np.nan] if target_returns is None else target_returns, np.float64
        )
        self._seeds = np.asarray(envs.episode_seeds(seed, episodes))
        self._num_seeds = num_seeds
        # One flat axis: target 0 with each episode's seed, then target 1, and so on. It
        # is cut into parts of equal length, so that a few episodes may be played twice;
        # `_join` drops them. Each seed of training plays all of its part.
        count = len(self._targets) * episodes
        local = count // jax.process_count()
        halves = local >= _MIN_EPISODES and envs.ENGINES[spec.engine].thread_safe
        parts = 2 if halves else 1  # per process
        shape = jax.process_count() * parts, -1
        share = -(-count // shape[0])
        flat = np.resize(np.arange(count), shape[0] * share).reshape(shape)
        flat = flat[jax.process_index() * parts :][:parts]
        each = [np.tile(part, num_seeds) for part in flat]
        self._target_of = [
            self._targets.astype(np.float32)[part // episodes] for part in each
        ]
        self._seed_of = [self._seeds[part % episodes] for part in each]
        self._env = envs.EnvGroup(
            [envs.make(spec, seeds.tolist()) for seeds in self._seed_of]
        )
        episode_len = agent.episode_len
        if episode_len < spec.max_episode_steps < NO_LIMIT:
            warnings.warn(
                f"episodes of {spec.name} are cut off after episode_len={episode_len} "
                f"steps, but may have {spec.max_episode_steps}: returns are those of "
                "the part that is played",
                stacklevel=1,
            )
        actor = agent if num_seeds == 1 else MultiSeedAgent(agent, num_seeds)
        self._rollout = Rollout(actor, self._env, episode_len)

    def __call__(
        self, params: Params, between_chunks: Callable[[], None] = lambda: None
    ) -> Evaluation:
        """Play every episode to its end.

        Args:
          params: the agent's acting parameters.
          between_chunks: called every few timesteps, by two threads at once; an
            exception that it raises ends the evaluation.

        Raises:
          UserError: the policy or the environment returned NaN or infinity.
        """
        with distributed.all_succeed():
            started = [self._env.reset(i) for i in range(len(self._env.parts))]

            def play(i: int) -> Any:
                targets = self._target_of[i] if self._conditioned else None
                keys = jax.vmap(jax.random.key)(jnp.asarray(self._seed_of[i]))
                return jax.device_get(
                    self._rollout(params, *started[i], targets, keys, between_chunks)
                )

            # One half in this thread, which has to wake up for signals.
            with ThreadPoolExecutor(1, "rollout") as thread:
                others = [thread.submit(play, i) for i in range(1, len(started))]
                played = [play(0), *(other.result() for other in others)]
            self._env.check()
            if not all(np.isfinite(part.returns).all() for part in played):
                raise UserError(
                    f"the return of an episode of {self._spec.name} is NaN or infinite"
                )
        returns = self._join([part.returns for part in played])
        return Evaluation(
            target_returns=self._targets,
            seeds=self._seeds,
            returns=returns,
            lengths=self._join([part.lengths for part in played]),
            normalized_scores=normalized_score(self._spec, returns),
        )

    def _join(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return the parts of all processes as one array, [K, E] or [S, K, E]."""
        by_seed = [part.reshape(self._num_seeds, -1) for part in parts]
        flat = distributed.gather(np.concatenate(by_seed, axis=-1))
        shape = self._num_seeds, len(self._targets), len(self._seeds)
        whole = flat[:, : shape[1] * shape[2]].reshape(shape)
        return whole if self._num_seeds > 1 else whole[0]


def make_evaluator(
    config: ConfigDict, agent: Agent, spec: EnvSpec | None
) -> Evaluator | None:
    """Return the evaluator that a configuration describes; None if it has none."""
    if spec is None or config.eval_episodes == 0:
        return None
    return Evaluator(
        agent,
        spec,
        config.target_returns if agent.conditioned else None,
        config.eval_episodes,
        config.eval_seed,
        config.num_seeds,
    )
