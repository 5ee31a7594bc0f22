"""Evaluation: how a policy fares at several target returns, and how that is kept."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from ml_collections import ConfigDict

from dt_jax import envs
from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.agents.multi_seed import ManySeeds
from dt_jax.data.registry import NO_LIMIT, EnvSpec, normalized_score
from dt_jax.rollout.rollout import Episodes, make_rollout
from dt_jax.runs.evaluations import Evaluation
from dt_jax.types import Params
from dt_jax.utils import distributed
from dt_jax.utils.errors import UserError

_FROM_EPISODES = 8  # in halves they are faster: docs/benchmarks.md


class Evaluator:
    """Plays all episodes of all targets at once, on one device of each process."""

    def __init__(
        self,
        agent: DecisionTransformerAgent,
        spec: EnvSpec,
        target_returns: Sequence[float],
        episodes: int,
        seed: int,
        num_seeds: int = 1,
    ):
        """Set up an environment for each episode and the program that plays in them.

        Of several processes each has its share of the episodes. That is played in two
        halves, if there are many: in one the environments step while the network acts
        for the other.

        Args:
          agent: whose parameters are to be evaluated.
          spec: the environment and the constants of its score.
          target_returns: K of them, in the environment's units.
          episodes: E, for each target.
          seed: from which each of the E episodes gets its own.
          num_seeds: S; with more than one, parameters have a leading axis for them.

        Raises:
          UserError: the environment cannot be built.
        """
        self._spec = spec
        self._targets = np.asarray(target_returns, np.float64)
        self._seeds = np.asarray(envs.episode_seeds(seed, episodes))
        self._num_seeds = num_seeds
        # One flat axis: target 0 with each episode's seed, then target 1, and so on. It
        # is cut into parts of one length, so that a few episodes may be played twice:
        # `_whole` leaves them out. Each seed of training plays all of its part.
        count = len(self._targets) * episodes
        here = count // jax.process_count()
        halves = here >= _FROM_EPISODES and envs.ENGINES[spec.engine].thread_safe
        parts = 2 if halves else 1  # in each process
        shape = jax.process_count() * parts, -1
        share = -(-count // shape[0])
        flat = np.resize(np.arange(count), shape[0] * share).reshape(shape)
        flat = flat[jax.process_index() * parts :][:parts]
        each = [np.tile(part, num_seeds) for part in flat]
        self._asked = [
            self._targets.astype(np.float32)[part // episodes] for part in each
        ]
        self._env = envs.EnvGroup(
            [envs.make(spec, self._seeds[part % episodes].tolist()) for part in each]
        )
        episode_len = agent.model.episode_len
        if episode_len < spec.max_episode_steps < NO_LIMIT:
            warnings.warn(
                f"episodes of {spec.name} are cut off after episode_len={episode_len} "
                f"steps, and could have {spec.max_episode_steps}: returns are those of "
                "the part that is played",
                stacklevel=1,
            )
        actor = agent if num_seeds == 1 else ManySeeds(agent, num_seeds)
        self._rollout = make_rollout(actor, self._env, episode_len)

    def __call__(
        self, params: Params, between_chunks: Callable[[], None] = lambda: None
    ) -> Evaluation:
        """Play every episode to its end.

        Args:
          params: the network's parameters.
          between_chunks: called every few timesteps, and by two threads at once; what
            it raises ends it all.

        Raises:
          UserError: the policy or the environment gave something that is no number.
        """
        with distributed.all_or_none():
            begun = [self._env.reset(i) for i in range(len(self._env.parts))]

            def play(i: int) -> Episodes:
                return jax.device_get(
                    self._rollout(params, *begun[i], self._asked[i], between_chunks)
                )

            # One half in this thread, which has to wake up for signals.
            with ThreadPoolExecutor(1, "rollout") as thread:
                others = [thread.submit(play, i) for i in range(1, len(begun))]
                played = [play(0), *(other.result() for other in others)]
            self._env.check()
            if not all(np.isfinite(part.returns).all() for part in played):
                raise UserError(
                    f"an episode of {self._spec.name} returned no finite number"
                )
        returns, lengths = map(self._whole, zip(*played, strict=True))
        return Evaluation(
            target_returns=self._targets,
            seeds=self._seeds,
            returns=returns,
            lengths=lengths,
            normalized_scores=normalized_score(self._spec, returns),
        )

    def _whole(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Put this process's parts and the others' together: [K, E], or [S, K, E]."""
        apart = [part.reshape(self._num_seeds, -1) for part in parts]
        flat = distributed.gather(np.concatenate(apart, axis=-1))
        shape = self._num_seeds, len(self._targets), len(self._seeds)
        whole = flat[:, : shape[1] * shape[2]].reshape(shape)
        return whole if self._num_seeds > 1 else whole[0]


def make_evaluator(
    config: ConfigDict, agent: DecisionTransformerAgent, spec: EnvSpec | None
) -> Evaluator | None:
    """Return what evaluates `agent` as the configuration says, if anything does."""
    if spec is None or config.eval_episodes == 0:
        return None
    return Evaluator(
        agent,
        spec,
        config.target_returns,
        config.eval_episodes,
        config.eval_seed,
        config.num_seeds,
    )
