"""What a run evaluates: episodes in the environment, and the error on held-out data."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from dt_jax.agents.base import Agent
from dt_jax.agents.multi_seed import MultiSeedAgent
from dt_jax.data.registry import EnvSpec
from dt_jax.data.sampler import Sampler
from dt_jax.evaluation.evaluator import make_evaluator
from dt_jax.runs.aggregate import aggregate_seeds
from dt_jax.runs.evaluations import Evaluation
from dt_jax.types import Array, Batch, Params

HOLDOUT_METRIC = "eval/holdout_action_mse"
_MAX_WINDOWS = 2048  # a few seconds on a laptop at CORL's sizes


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
      holdout: draws from held-out trajectories, if any.
    """

    def __init__(
        self,
        config: ConfigDict,
        agent: Agent,
        spec: EnvSpec | None,
        holdout: Sampler | None,
    ):
        self._seeds = range(config.train_seed, config.train_seed + config.num_seeds)
        self._evaluator = make_evaluator(config, agent, spec)
        self._holdout = holdout and HoldoutError(agent, holdout, config.num_seeds)

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
            errors = self._holdout(params)
            name = HOLDOUT_METRIC
            metrics |= aggregate_seeds(self._seeds, {name: errors}, [name])
            score = -float(errors.mean())
            log(f"held-out action error {-score:.5g}")
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
    """The mean error of predicted actions on held-out trajectories.

    The trajectories are tiled with windows, so that every action is predicted once; of
    more than 2048 windows, so many are taken at equal distances. With several seeds
    parameters have a leading axis.
    """

    def __init__(self, agent: Agent, sampler: Sampler, num_seeds: int = 1):
        starts = sampler.tiling()
        count = min(len(starts), _MAX_WINDOWS)
        self._starts = starts[np.linspace(0, len(starts) - 1, count).astype(int)]
        self._sampler = sampler
        self._action_size = agent.action_size
        evaluated = agent if num_seeds == 1 else MultiSeedAgent(agent, num_seeds)

        def sums(params: Params, batch: Batch) -> tuple[Array, Array]:
            errors = evaluated.validation_loss(params, batch)
            return errors.sum(axis=(-3, -2, -1)), batch.mask.sum()

        self._sums = jax.jit(sums)

    def __call__(self, params: Params) -> np.ndarray:
        """Return the mean error over all actions of the windows, [] or [S]."""
        size = self._sampler.batch_size
        error, count = np.zeros(()), np.zeros(())
        for first in range(0, len(self._starts), size):
            starts = self._starts[first : first + size]
            # All batches have one shape, so that one program serves them.
            batch = self._sampler.gather(np.resize(starts, size))
            batch.mask[len(starts) :] = 0
            batch_error, batch_count = jax.device_get(self._sums(params, batch))
            error = error + np.asarray(batch_error, np.float64)
            count = count + np.asarray(batch_count, np.float64)
        return error / (count * self._action_size)
