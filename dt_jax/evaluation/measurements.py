"""What a run measures at an evaluation: the held-out error, and episodes."""

from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.data.registry import EnvSpec
from dt_jax.data.sampler import Sampler
from dt_jax.evaluation import holdout
from dt_jax.evaluation.evaluator import make_evaluator
from dt_jax.runs.aggregate import across_seeds
from dt_jax.runs.evaluations import Evaluation
from dt_jax.types import Params


class Measured(NamedTuple):
    """What one evaluation came to."""

    metrics: dict[str, float]
    score: float  # by which checkpoints compare
    evaluation: Evaluation | None  # if episodes were played


class Measurements:
    """Measures parameters in every way that a configuration asks for; maybe in none.

    Args:
      config: the run's.
      agent: whose parameters are to be measured.
      spec: the environment, if there is one.
      held_out: a sampler of trajectories that are not trained on, if there are such.

    Raises:
      UserError: the environment can't be built.
    """

    def __init__(
        self,
        config: ConfigDict,
        agent: DecisionTransformerAgent,
        spec: EnvSpec | None,
        held_out: Sampler | None,
    ):
        self._seeds = range(config.train_seed, config.train_seed + config.num_seeds)
        self._evaluator = make_evaluator(config, agent, spec)
        self._holdout = held_out and holdout.HoldoutError(
            agent, held_out, config.num_seeds
        )

    def __bool__(self) -> bool:
        """Tell whether there is anything to measure."""
        return self._evaluator is not None or self._holdout is not None

    def __call__(
        self,
        params: Params,
        say: Callable[[str], None],
        between_chunks: Callable[[], None],
    ) -> Measured:
        """Measure parameters.

        Args:
          params: the network's; of several seeds with a leading axis.
          say: takes a line about each result.
          between_chunks: see `Evaluator`.
        """
        metrics: dict[str, float] = {}
        score, evaluation = 0.0, None
        if self._holdout:
            errors = self._holdout(params)
            name = holdout.METRIC
            metrics |= across_seeds(self._seeds, {name: errors}, [name])
            score = -float(errors.mean())
            say(f"held-out action error {-score:.5g}")
        if self._evaluator:
            evaluation = self._evaluator(params, between_chunks)
            measured = evaluation.metrics()
            compared = [
                name
                for name in measured
                if name.endswith(("return_mean", "normalized_score_mean"))
            ]
            metrics |= across_seeds(self._seeds, measured, compared)
            score = evaluation.score
            _tell(evaluation, say)
        return Measured(metrics, score, evaluation)


def _tell(evaluation: Evaluation, say: Callable[[str], None]) -> None:
    for k, target in enumerate(evaluation.target_returns):
        line = f"target {target:g}: "
        line += f"return {evaluation.returns[..., k, :].mean():.1f}"
        if (scores := evaluation.normalized_scores) is not None:
            line += f", normalised score {scores[..., k, :].mean():.1f}"
        say(line)
