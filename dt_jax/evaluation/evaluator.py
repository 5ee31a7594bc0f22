"""Evaluation: episodes at several target returns, and the error on held-out data."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dt_jax import envs
from dt_jax.agents.base import Agent
from dt_jax.agents.multi_seed import MultiSeedAgent
from dt_jax.data.arrays import column_statistics
from dt_jax.data.registry import NO_LIMIT, EnvSpec, normalized_score
from dt_jax.data.sampler import Sampler
from dt_jax.rollout.rollout import Rollout
from dt_jax.runs.aggregate import aggregate_seeds
from dt_jax.runs.evaluations import Evaluation
from dt_jax.runs.metrics import HOLDOUT, holdout_words
from dt_jax.types import Array, Batch, Params
from dt_jax.utils import distributed
from dt_jax.utils.errors import UserError

_MAX_WINDOWS = 2048  # held out; a few seconds on a laptop at CORL's sizes
_MIN_EPISODES = 8  # from which two halves are faster than one: docs/parity.md


def _parts(
    count: int, groups: int, num_seeds: int, max_envs: int | None
) -> list[np.ndarray]:
    """Return the episodes, from 0 to below `count`, of each part of this process.

    Target 0 with each episode's seed, then target 1, and so on, is one flat axis. It is
    cut into parts of equal length, so that a few episodes may be played twice:
    `Evaluator._join` drops them. Each seed of training plays all of a part.

    Raises:
      UserError: max_envs is too small.
    """
    parts, processes = groups, jax.process_count()
    if max_envs is not None:
        if max_envs < num_seeds:
            raise UserError(
                f"max_envs={max_envs} is less than num_seeds={num_seeds}, which "
                "play side by side: increase it, or train each seed by itself"
            )
        each_process = -(-count // processes)
        parts = -(-each_process // (max_envs // num_seeds))
    share = -(-count // (processes * parts))
    flat = np.resize(np.arange(count), (processes * parts, share))
    ours = flat[jax.process_index() * parts :][:parts]
    return [np.tile(part, num_seeds) for part in ours]


class Evaluator:
    """Plays the episodes of all target returns, on one device per process."""

    def __init__(
        self,
        agent: Agent,
        spec: EnvSpec,
        target_returns: Sequence[float] | None,
        episodes: int,
        seed: int,
        num_seeds: int = 1,
        max_envs: int | None = None,
    ):
        """Build the environments; `close` closes them.

        Each process plays an equal share of the episodes. A large share is played in
        two halves: the environments of one step while the network acts for the other.
        With `max_envs` it is played in parts of at most so many, one after the other
        in the same environments.

        Args:
          agent: whose parameters are evaluated.
          spec: the environment and the reference returns of its score.
          target_returns: K of them, in the environment's units; None for an agent that
            is not conditioned on one.
          episodes: E, for each target return.
          seed: from which each of the E episodes gets its own.
          num_seeds: S; with more than one, parameters have a leading axis of seeds.
          max_envs: most environments of a process, at least S; None: no limit.

        Raises:
          UserError: the environment cannot be built, or max_envs is too small.
        """
        self._spec = spec
        self._conditioned = target_returns is not None
        self._targets = np.asarray(
            [np.nan] if target_returns is None else target_returns, np.float64
        )
        self._seeds = np.asarray(envs.episode_seeds(seed, episodes))
        self._num_seeds = num_seeds
        count = len(self._targets) * episodes
        halves = count // jax.process_count() >= _MIN_EPISODES
        halves = halves and envs.ENGINES[spec.engine].thread_safe
        groups = 2 if halves and max_envs is None else 1  # of environments
        each = _parts(count, groups, num_seeds, max_envs)
        self._target_of = [
            self._targets.astype(np.float32)[part // episodes] for part in each
        ]
        self._seed_of = [self._seeds[part % episodes] for part in each]
        episode_len = agent.episode_len
        if episode_len < spec.max_episode_steps < NO_LIMIT:
            warnings.warn(
                f"episodes of {spec.name} are cut off after episode_len={episode_len} "
                f"steps, but may have {spec.max_episode_steps}: returns are those of "
                "the part that is played",
                stacklevel=1,
            )
        with ExitStack() as stack:
            built = []
            for seeds in self._seed_of[:groups]:
                built.append(envs.make(spec, seeds.tolist()))
                stack.callback(built[-1].close)
            self._env = envs.EnvGroup(built)
            self.close = stack.pop_all().close
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
            groups, played = len(self._env.parts), []
            for first in range(0, len(self._seed_of), groups):
                played += self._play(
                    range(first, first + groups), params, between_chunks
                )
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

    def _play(
        self, parts: range, params: Params, between_chunks: Callable[[], None]
    ) -> list[Any]:
        """Return the episodes of some parts, each played in its group at once."""
        started = {}
        for group, part in enumerate(parts):
            self._env.parts[group].seeds = self._seed_of[part].tolist()
            started[part] = self._env.reset(group)

        def play(part: int) -> Any:
            targets = self._target_of[part] if self._conditioned else None
            keys = jax.vmap(jax.random.key)(jnp.asarray(self._seed_of[part]))
            return jax.device_get(
                self._rollout(params, *started[part], targets, keys, between_chunks)
            )

        # One half in this thread, which has to wake up for signals.
        with ThreadPoolExecutor(1, "rollout") as thread:
            others = [thread.submit(play, part) for part in parts[1:]]
            played = [play(parts[0]), *(other.result() for other in others)]
        self._env.check()
        return played

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
        config.max_envs,
    )


class EvalResult(NamedTuple):
    """The result of one evaluation."""

    metrics: dict[str, float]
    score: float  # by which checkpoints are compared
    evaluation: Evaluation | None  # if episodes were played


class RunEvaluator:
    """Evaluates parameters in every way that a configuration asks for; maybe in none.

    Args:
      config: the run's.
      agent: whose parameters are evaluated.
      spec: the environment, if any.
      holdout: draws from held-out trajectories, if any: one for all seeds, or one for
        each.
    """

    def __init__(
        self,
        config: ConfigDict,
        agent: Agent,
        spec: EnvSpec | None,
        holdout: Sequence[Sampler],
    ):
        self._seeds = range(config.train_seed, config.train_seed + config.num_seeds)
        seeds = config.num_seeds
        self._holdout = HoldoutError(agent, holdout, seeds) if holdout else None
        self._measured = agent.validation_metric
        self._evaluator = make_evaluator(config, agent, spec)

    def close(self) -> None:
        """Close the environments."""
        if self._evaluator:
            self._evaluator.close()

    def __bool__(self) -> bool:
        """Return whether there is anything to evaluate."""
        return self._evaluator is not None or self._holdout is not None

    def __call__(
        self,
        params: Params,
        log: Callable[[str], None],
        between_chunks: Callable[[], None],
    ) -> EvalResult:
        """Evaluate parameters.

        Args:
          params: the acting parameters; of several seeds with a leading axis.
          log: takes a line about each result.
          between_chunks: see `Evaluator`.
        """
        metrics: dict[str, float] = {}
        score, evaluation = 0.0, None
        if self._holdout:
            errors, relative = self._holdout(params)
            name = HOLDOUT + self._measured
            found = {name: errors}
            score = -float(errors.mean())
            line = f"held-out {holdout_words(name)} {-score:.5g}"
            if relative.size:
                found[f"{name}_relative"] = relative.mean(axis=-1)
                numbers = zip(self._holdout.varying, relative.T, strict=True)
                each = ", ".join(f"{i}: {values.mean():.3g}" for i, values in numbers)
                line += f"; of its variance, by action number: {each}"
            metrics |= aggregate_seeds(self._seeds, found, found)
            log(line)
        if self._evaluator:
            evaluation = self._evaluator(params, between_chunks)
            found = evaluation.metrics()
            ends = "return_mean", "normalized_score_mean"
            compared = [name for name in found if name.endswith(ends)]
            metrics |= aggregate_seeds(self._seeds, found, compared)
            score = evaluation.score
            for k, target in enumerate(evaluation.target_returns):
                line = "" if np.isnan(target) else f"target {target:g}: "
                line += f"return {evaluation.returns[..., k, :].mean():.1f}"
                if (scores := evaluation.normalized_scores) is not None:
                    line += f", normalised score {scores[..., k, :].mean():.1f}"
                log(line)
        return EvalResult(metrics, score, evaluation)


class HoldoutError:
    """The mean of `Agent.validation_loss` on held-out trajectories.

    The trajectories are tiled with windows, so that every step is predicted once; of
    more than 2048 windows, so many are taken at equal distances. With several seeds
    parameters have a leading axis, and each seed may have windows with its own labels.

    Attributes:
      varying: the V action numbers that are not constant in the windows, increasing;
        none where the error is not that of each action number.
    """

    def __init__(self, agent: Agent, samplers: Sequence[Sampler], num_seeds: int = 1):
        sampler = samplers[0]
        starts = sampler.tiling()
        count = min(len(starts), _MAX_WINDOWS)
        self._starts = starts[np.linspace(0, len(starts) - 1, count).astype(int)]
        self._samplers = samplers
        windows, slots = sampler.windows(self._starts), np.arange(sampler.context_len)
        rows = windows.rows[:, None] + slots
        rows = rows[slots < windows.left[:, None]]
        actions = column_statistics(sampler.dataset.actions[rows])
        self.varying = np.flatnonzero(~actions.constant)
        if agent.validation_metric != "action_mse":
            self.varying = self.varying[:0]
        variance = np.square(actions.std / sampler.dataset.action_scale)
        self._variance = variance[self.varying]  # in the network's units
        evaluated = agent if num_seeds == 1 else MultiSeedAgent(agent, num_seeds)

        def sums(params: Params, batch: Batch) -> tuple[Array, Array, Array]:
            errors = evaluated.validation_loss(params, batch)
            each = errors.sum(axis=(-3, -2))
            return errors.sum(axis=(-3, -2, -1)), each, batch.mask.sum(axis=(-2, -1))

        self._sums = jax.jit(sums)

    def __call__(self, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean errors over all steps of the windows.

        Returns:
          The error, [] or [S], and that of each varying action number relative to its
          variance, [V] or [S, V]: 1 is no better than always the mean.
        """
        size = self._samplers[0].batch_size
        error, each, count = np.zeros(()), np.zeros(1), np.zeros(())
        for first in range(0, len(self._starts), size):
            starts = self._starts[first : first + size]
            # All batches have one shape, so that one program serves them.
            padded = np.resize(starts, size)
            batch, *others = [each.gather(padded) for each in self._samplers]
            if others:
                batch = jax.tree.map(lambda *each: np.stack(each), batch, *others)
            batch.mask[..., len(starts) :, :] = 0
            sums = map(np.float64, jax.device_get(self._sums(params, batch)))
            error, each, count = map(np.add, (error, each, count), sums)
        relative = each[..., self.varying] / (count[..., None] * self._variance)
        return error / (count * each.shape[-1]), relative
