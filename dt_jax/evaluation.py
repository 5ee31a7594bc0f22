"""Evaluation: how a policy fares at several target returns, and how that is kept."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from dt_jax import envs, processes
from dt_jax.agents.decision_transformer import DecisionTransformerAgent
from dt_jax.agents.many_seeds import ManySeeds
from dt_jax.data.npz import npz_columns
from dt_jax.envs.in_parts import InParts
from dt_jax.errors import UserError
from dt_jax.files import replacing
from dt_jax.registry import NO_LIMIT, DatasetSpec
from dt_jax.rollout import Episodes, make_rollout
from dt_jax.scores import normalized_score
from dt_jax.types import Params


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one evaluation, K targets with E episodes each.

    Of a run with S seeds, returns, lengths and scores are [S, K, E].

    Attributes:
      target_returns: [K] float64, what was asked for.
      seeds: [E], episode i's seed, the same at every target.
      returns: [K, E] float32, what was reached.
      lengths: [K, E] int32, environment steps.
      normalized_scores: [K, E], D4RL's score of each return; None where nobody knows
        which returns are to score 0 and 100.
    """

    target_returns: np.ndarray
    seeds: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray
    normalized_scores: np.ndarray | None = None

    @property
    def score(self) -> float:
        """The mean return over all targets, by which checkpoints compare.

        Normalised scores put them in the same order.
        """
        return float(self.returns.mean(dtype=np.float64))

    def of_seed(self, i: int) -> "Evaluation":
        """Return the episodes of the i-th seed, of several."""
        scores = self.normalized_scores
        return replace(
            self,
            returns=self.returns[i],
            lengths=self.lengths[i],
            normalized_scores=None if scores is None else scores[i],
        )

    def metrics(self) -> dict[str, np.ndarray]:
        """Return means and standard deviations over episodes under CORL's names.

        They are numbers, or [S].
        """
        arrays = {
            "return": self.returns,
            "normalized_score": self.normalized_scores,
            "length": self.lengths,
        }
        metrics = {}
        for k, target in enumerate(self.target_returns):
            for name, values in arrays.items():
                if values is not None:
                    name = f"eval/{float(target)}_{name}"
                    metrics[f"{name}_mean"] = values[..., k, :].mean(axis=-1)
                    metrics[f"{name}_std"] = values[..., k, :].std(axis=-1)
        return metrics

    def save(self, path: Path) -> None:
        """Write every array to an .npz."""
        arrays = {k: array for k, array in vars(self).items() if array is not None}
        with replacing(path) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """Read what `save` wrote.

        Raises:
          UserError: it is damaged, or another file.
        """
        try:
            with npz_columns(path) as columns:
                for column in columns.values():
                    column.check_whole(gaps=False)
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**arrays)
        except (TypeError, UserError, ValueError) as error:
            raise UserError(f"{path} is no evaluation: remove it ({error})") from None


def last_evaluation(workdir: Path) -> tuple[int, Evaluation] | None:
    """Return the step and the episodes of a run's newest evaluation, if any."""
    files = _files(workdir)
    if not files:
        return None
    step = max(files)
    return step, Evaluation.load(files[step])


def _files(workdir: Path) -> dict[int, Path]:
    """Return where a run's evaluations are, by the updates completed before each."""
    return {
        int(path.stem): path
        for path in (workdir / "eval").glob("*.npz")
        if path.stem.isdecimal()
    }


def forget_evaluations_after(step: int, workdir: Path) -> None:
    """Delete the evaluations that a run which goes on from `step` has lost."""
    for of_step, path in _files(workdir).items():
        if of_step > step:
            path.unlink()


_FROM_EPISODES = 8  # in halves they are faster: docs/benchmarks.md


class Evaluator:
    """Plays all episodes of all targets at once, on one device of each process."""

    def __init__(
        self,
        agent: DecisionTransformerAgent,
        spec: DatasetSpec,
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
        halves = here >= _FROM_EPISODES and envs.may_run_side_by_side(spec)
        parts = 2 if halves else 1  # in each process
        shape = jax.process_count() * parts, -1
        share = -(-count // shape[0])
        flat = np.resize(np.arange(count), shape[0] * share).reshape(shape)
        flat = flat[jax.process_index() * parts :][:parts]
        each = [np.tile(part, num_seeds) for part in flat]
        self._asked = [
            self._targets.astype(np.float32)[part // episodes] for part in each
        ]
        self._env = InParts(
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
        with processes.all_or_none():
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
        flat = processes.gather(np.concatenate(apart, axis=-1))
        shape = self._num_seeds, len(self._targets), len(self._seeds)
        whole = flat[:, : shape[1] * shape[2]].reshape(shape)
        return whole if self._num_seeds > 1 else whole[0]


def make_evaluator(
    config: ConfigDict, agent: DecisionTransformerAgent, spec: DatasetSpec | None
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
