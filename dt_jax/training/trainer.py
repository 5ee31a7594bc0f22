"""One run: the training state, and what happens at each step."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from signal import Signals
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dt_jax.agents import make_agent
from dt_jax.agents.base import Agent, Metrics, Trained, TrainState
from dt_jax.agents.multi_seed import MultiSeedAgent
from dt_jax.config.keys import keys_of
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.registry import EnvSpec
from dt_jax.data.sampler import Sampler
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets import Dataset
from dt_jax.evaluation.evaluator import RunEvaluator
from dt_jax.runs.aggregate import aggregate_seeds
from dt_jax.runs.checkpoint import Checkpoint, CheckpointWriter
from dt_jax.runs.evaluations import delete_evaluations_after
from dt_jax.runs.folder import write_description
from dt_jax.runs.metrics import MetricsLog, holdout_metric
from dt_jax.training.batches import check_batch_memory, make_batches, prefetch
from dt_jax.training.loggers import Loggers
from dt_jax.training.multi_step import MultiStep, step_chunks
from dt_jax.training.progress import ProgressReport
from dt_jax.types import Params
from dt_jax.utils import distributed
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import atomic_write
from dt_jax.utils.sharding import make_sharding
from dt_jax.utils.signals import Stopped, StopRequest
from dt_jax.utils.versions import versions

_MAX_UNREAD = 1000  # updates whose metrics are read together

Row = Mapping[str, float]
Callback = Callable[[int, Row, Callable[[], None]], None]


class Trainer:
    """Makes the updates of a run, and evaluates, logs and saves when it is due.

    Args:
      config: validated, with nothing left to the data.
      workdir: the run's folder.
      dataset: its trajectories.
      spec: the environment, if any.
      normalizer: the units of the agent.
      params: acting parameters that all seeds start with, instead of initialising.
      callbacks: see `dt_jax.train`.

    Attributes:
      record: what checkpoints hold besides arrays.
      signal: one that `run` received too late to stop.
    """

    signal: Signals | None = None

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        dataset: Dataset,
        spec: EnvSpec | None,
        normalizer: Normalizer,
        params: Params | None = None,
        callbacks: Sequence[Callback] = (),
    ):
        self.config = config
        self.agent: Agent = make_agent(config, normalizer)
        check_batch_memory(config, self.agent)
        self.record = {
            "config": config.to_dict(),
            "normalizer": normalizer.to_record(),
            "action_bounds": None if spec is None else spec.action_bounds.tolist(),
            "dataset": dataset.identity(),
            "versions": versions(),
        }
        self._workdir, self._callbacks, self._params = workdir, callbacks, params
        trained_on, held_out = dataset.trajectories, None
        if config.holdout_fraction:
            trained_on, held_out = trained_on.hold_out(config.holdout_fraction)
        trained_on = self.agent.select(config, trained_on)

        def sampler(trajectories: Trajectories, index: int, kind: str) -> Sampler:
            return Sampler(
                trajectories,
                normalizer,
                batch_size=config.batch_size,
                context_len=self.agent.context_len,
                seed=config.train_seed + index,
                fields=tuple(dict.fromkeys((*self.agent.batch_fields, "mask"))),
                kind=kind,
                labels=dataset.labels[index] if dataset.labels else None,
            )

        first, count = config.train_seed, config.num_seeds
        self._seeds = range(first, first + count)
        kind = self.agent.batch_kind
        self._samplers = [sampler(trained_on, i, kind) for i in range(count)]
        self._sharding = make_sharding(config.num_devices, count, config.batch_size)
        self._actor = self.agent if count == 1 else MultiSeedAgent(self.agent, count)
        self._norm = jax.jit(optax.tree.norm)
        self._saved = 0  # the step of the newest checkpoint
        # Metrics of an update whose evaluation is due before the next update, see
        # `_save`; at first, an evaluation of the initial parameters.
        self._pending: dict[str, float] | None = {}
        holdout: list[Sampler] = []
        if held_out is not None:  # the same for all seeds without labels
            indices = range(count if dataset.labels else 1)
            holdout = [sampler(held_out, i, "windows") for i in indices]
        self._evaluator = RunEvaluator(config, self.agent, spec, holdout)

    def close(self) -> None:
        """Close the environments."""
        self._evaluator.close()

    # Start: a fresh state, or that of a checkpoint.

    def start(
        self,
        checkpoint: Checkpoint | None,
        stages: Sequence[Mapping[str, Trained]] | None = None,
    ) -> None:
        """Initialise the training state, or restore it from a checkpoint.

        All processes do this together.

        Args:
          checkpoint: of the run that is resumed; None: a new one.
          stages: for a new run, the results of its stages for each seed.
        """
        batches = make_batches(
            self._samplers, self._sharding, self.config.device_memory_share
        )
        self._multi_step = MultiStep(
            self._actor.update, batches, self.config.steps_per_dispatch
        )
        one_seed = len(self._seeds) == 1
        seeds = self._seeds[0] if one_seed else np.array(self._seeds)

        def init(seeds: Any) -> TrainState:
            key = jax.random.key
            return self._actor.init(key(seeds) if one_seed else jax.vmap(key)(seeds))

        init = jax.jit(init, out_shardings=self._sharding.state)
        if checkpoint is not None:
            self._state = self._restore(checkpoint, jax.eval_shape(init, seeds))
            return
        self._state = init(seeds)
        if self._params is not None:
            acting = self._actor.acting_params(self._state)
            shapes = jax.tree.map(jnp.shape, acting)

            def warm_start(state: TrainState, params: Params) -> TrainState:
                params = jax.tree.map(jnp.broadcast_to, params, shapes)
                return self._actor.warm_start(state, params)

            warm_start = jax.jit(warm_start, out_shardings=self._sharding.state)
            self._state = warm_start(self._state, self._params)
        if stages and stages[0]:
            self._state = self._with_stages(stages)

    def _with_stages(self, stages: Sequence[Mapping[str, Trained]]) -> TrainState:
        """Return the state of a new run with what it needs of the stages."""

        def join(*params: Any) -> Any:
            return params[0] if len(params) == 1 else np.stack(params)

        agents = {name: trained.agent for name, trained in stages[0].items()}
        params = {
            name: jax.tree.map(join, *(jax.device_get(s[name].params) for s in stages))
            for name in agents
        }

        def with_stages(state: TrainState, params: dict[str, Params]) -> TrainState:
            results = {name: Trained(agents[name], params[name]) for name in agents}
            return self._actor.with_stages(state, results)

        with_stages = jax.jit(with_stages, out_shardings=self._sharding.state)
        try:
            return with_stages(self._state, params)
        except UserError as error:
            if source := self.config.get("labels_from"):
                raise UserError(f"config.labels_from={source}: {error}") from None
            raise

    def _restore(self, checkpoint: Checkpoint, shapes: TrainState) -> TrainState:
        self._saved = checkpoint.step
        self._pending = pending_metrics(checkpoint)
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=self._sharding.state
            ),
            shapes,
        )
        params, train = self._split(like)
        train = checkpoint.train(train)
        for name in {"params", "extra"} - set(train):  # training and acting share them
            train[name] = checkpoint.params(params)
        return TrainState(**train)

    def _split(self, state: TrainState) -> tuple[Params, dict[str, Any]]:
        """Return the acting parameters, and the rest of the state to be saved."""
        params = self._actor.acting_params(state)
        train = vars(state).copy()
        for name in "params", "extra":
            if params is train[name]:
                del train[name]
        return params, train

    @property
    def params(self) -> Params:
        """The acting parameters, on one device of this process."""
        return self._sharding.to_local_device(self._actor.acting_params(self._state))

    @property
    def step(self) -> int:
        """Updates completed."""
        step = self._sharding.to_local_device(self._state.step)
        return int(np.max(jax.device_get(step)))

    def update_once(self) -> dict[str, float]:
        """Make one update outside of a run, and return its metrics."""
        inputs = self._multi_step.inputs(range(1))
        self._state, metrics = self._multi_step(self._state, inputs, 1)
        return {name: float(jnp.mean(values[0])) for name, values in metrics.items()}

    # The run.

    def run(self) -> bool:
        """Make the remaining updates, with everything that is due between them.

        Returns:
          Whether the run has ended; False if a callback has stopped it. A signal that
          came too late to stop it is then `signal`.

        Raises:
          UserError: a metric or a parameter is not finite.
          Stopped: a signal was received; everything is saved.
        """
        config, start = self.config, self.step
        if not self._evaluator and config.eval_episodes:
            print("nothing is evaluated: no environment, no held-out trajectories")
        inputs = prefetch(
            self._multi_step.inputs, self._chunks(start), config.num_workers
        )
        # A pending row is written again: a killed run may have written it already.
        logged = start if self._pending is None else start - 1
        is_main = distributed.is_main_process()
        with (
            # Closed last: while one waits for its server, everything is saved, and a
            # signal ends the program at once.
            Loggers(config, self._workdir, up_to_step=logged) as self._loggers,
            StopRequest() as self._stop,
            CheckpointWriter(
                self._workdir / "checkpoints", config.keep_checkpoints
            ) as self._writer,
            MetricsLog(
                self._workdir / "metrics.jsonl" if is_main else None, up_to_step=logged
            ) as self._log,
            ProgressReport(
                f"training {config.agent}", config.update_steps, start, shown=is_main
            ) as self._progress,
            closing(inputs),
        ):
            with distributed.all_succeed():
                if is_main:
                    write_description(self._workdir, self.record)
                    delete_evaluations_after(start, self._workdir)
            self._callback_stop = False
            if self._pending is not None:
                self._finish_step(start, self._pending)
                if self._callback_has_stopped():
                    return self._is_last(start)
            # Compiled before the clock starts, which measures updates.
            self._multi_step.compile(self._state)
            self._start_clock(start)
            shared_signal = distributed.SharedMaximum()
            unread = []  # metrics of updates, which may still be running
            last_read = start
            for steps, local in zip(self._chunks(start), inputs, strict=True):
                self._state, metrics = self._multi_step(self._state, local, len(steps))
                unread.append((metrics, len(steps)))
                step = steps.stop
                due = self._logs(step) or self._evaluates(step) or self._saves(step)
                signal = shared_signal(self._stop.received or 0)
                if due or signal or step - last_read >= _MAX_UNREAD:
                    row, unread = self._read(unread, step), []
                    last_read = step
                    if due:
                        self._finish_step(step, row)
                self._writer.poll()
                if signal:
                    raise self._stopped(Signals(signal), step)
                if due and self._callback_has_stopped():
                    self._save_now(step)
                    return self._is_last(step)
        if late := distributed.maximum(self._stop.received or 0):
            self.signal = Signals(int(late))
        return True

    def _callback_has_stopped(self) -> bool:
        """Return whether a callback has stopped the run, the same on all processes."""
        return bool(self._callbacks) and bool(distributed.maximum(self._callback_stop))

    def _chunks(self, start: int) -> Iterator[range]:
        """Yield the steps of each call, which ends where something is due."""
        config = self.config
        return step_chunks(
            start,
            config.update_steps,
            config.steps_per_dispatch,
            boundaries=(config.log_every, config.eval_every, config.checkpoint_every),
        )

    def _logs(self, step: int) -> bool:
        return step % self.config.log_every == 0 or self._is_last(step)

    def _evaluates(self, step: int) -> bool:
        due = step % self.config.eval_every == 0 or self._is_last(step)
        return due and bool(self._evaluator)

    def _saves(self, step: int) -> bool:
        due = step % self.config.checkpoint_every == 0 or self._is_last(step)
        return step > 0 and (due or self._evaluates(step))

    def _is_last(self, step: int) -> bool:
        return step == self.config.update_steps

    def _finish_step(self, step: int, row: dict[str, float]) -> None:
        """Evaluate, log and save what is due; `row` has the update's metrics."""
        if row:
            loss = row[main_loss(row)]
            self._progress.update(step, loss, row["steps_per_second"])
        metrics: dict[str, float] = {}
        score = None
        if self._evaluates(step):
            try:
                metrics, score = self._evaluate(step)
            except Stopped as stopped:
                raise self._stopped(stopped.signal, step, pending=row) from None
            held_out = holdout_metric([metrics])
            error = metrics.get(held_out, 0.0)
            for name, value in (held_out, error), ("score", score):
                if not math.isfinite(value):
                    raise self._not_finite(f"step {step}: {name} is {value}")
        if metrics or (row and self._logs(step)):
            row = row | metrics
            self._log.write(step, row)
            self._loggers.write(step, row)
            if distributed.is_main_process():
                for callback in self._callbacks:
                    callback(step, row, self._request_stop)
            self._start_clock(step)
        # Last, so that a run resumed from here has the row above.
        if self._saves(step):
            self._save(step, score)

    def _request_stop(self) -> None:
        self._callback_stop = True

    def _evaluate(self, step: int) -> tuple[dict[str, float], float]:
        """Return the metrics of an evaluation, and the score of its checkpoint."""
        began = time.perf_counter()
        with self._progress.phase("evaluating"):
            result = self._evaluator(
                self.params,
                log=lambda line: self._progress.log(f"step {step}  {line}"),
                between_chunks=self._stop.check,
            )
        if result.evaluation and distributed.is_main_process():
            result.evaluation.save(self._workdir / "eval" / f"{step}.npz")
        seconds = time.perf_counter() - began
        return result.metrics | {"eval/seconds": seconds}, result.score

    def _save(
        self, step: int, score: float | None, pending: dict[str, float] | None = None
    ) -> None:
        """Start to save a checkpoint; if it exists, only add the score.

        Where this step's evaluation was interrupted, `pending` has the metrics of its
        update: a resumed run first repeats the evaluation.
        """
        if step == self._saved:
            self._writer.set_score(step, score)
            return
        if not math.isfinite(self._norm(self._state.params)):
            raise self._not_finite(f"step {step}: a parameter is not finite")
        record = self.record | {"step": step, "pending": pending}
        self._writer.save(step, *self._split(self._state), record, score=score)
        self._saved = step

    def _save_now(self, step: int, pending: dict[str, float] | None = None) -> None:
        """Save a checkpoint unless there is one, and wait for it."""
        if step != self._saved and step > 0:
            self._save(step, None, pending)
        self._writer.wait()

    def _stopped(
        self, signal: Signals, step: int, pending: dict[str, float] | None = None
    ) -> Stopped:
        """Save, and return the exception to leave with."""
        if step == 0:
            return Stopped(signal, " before the first update; nothing is lost")
        self._save_now(step, pending)
        return Stopped(
            signal, f" after {step} updates; saved: run the same command to resume"
        )

    def _read(self, unread: list[tuple[Metrics, int]], step: int) -> dict[str, float]:
        """Return the metrics of update `step`, after checking all since the last."""
        calls = [
            {name: values[:count] for name, values in metrics.items()}
            for metrics, count in jax.device_get(unread)
        ]
        read = {name: np.concatenate([c[name] for c in calls]) for name in calls[0]}
        self._check_finite(read, step)
        last = {name: values[-1] for name, values in read.items()}
        row = aggregate_seeds(self._seeds, last)
        seconds = time.perf_counter() - self._clock
        return row | {"steps_per_second": (step - self._clock_step) / seconds}

    def _start_clock(self, step: int) -> None:
        self._clock, self._clock_step = time.perf_counter(), step

    # Numbers that are not finite.

    def _check_finite(self, read: Mapping[str, np.ndarray], step: int) -> None:
        """Check the metrics of updates, [n] or [n, S], the last one being `step`.

        Raises:
          UserError: one is not finite. The batch of that update is written to the run's
            folder: the transitions [B] at which its windows start, as `Sampler.gather`
            takes them, and their rows in the dataset; with several seeds [S, B].
        """
        finite = np.logical_and.reduce([np.isfinite(x) for x in read.values()])
        if finite.all():
            return
        where = np.unravel_index(finite.argmin(), finite.shape)
        first = step - len(finite) + 1 + int(where[0])
        values = ", ".join(f"{name} is {read[name][where]}" for name in read)
        path = self._workdir / f"not_finite_{first}.npz"
        indices = np.stack([s.indices(first - 1) for s in self._samplers])
        indices = indices.squeeze(0) if len(indices) == 1 else indices
        rows = self._samplers[0].windows(indices).rows
        if distributed.is_main_process():
            with atomic_write(path) as temporary:
                np.savez(temporary, step=first, indices=indices, rows=rows)
        raise self._not_finite(
            f"step {first}: {values} (the rows of its batch are in {path})"
        )

    def _not_finite(self, what: str) -> UserError:
        keys = keys_of(self.config.agent)
        rates = ("learning_rate", "clip_grad", "_lr")
        names = [key for key in keys if key.endswith(rates)]
        return UserError(
            f"{what}; all checkpoints in {self._workdir} are from before it. A smaller "
            f"{' or '.join(names)} may help, in a new --workdir"
        )


def main_loss(metrics: Mapping[str, Any]) -> str:
    """Return the name of the metric to print: "train_loss", or another loss."""
    losses = [name for name in metrics if "loss" in name]
    return "train_loss" if "train_loss" in metrics else (losses or [*metrics])[0]


def pending_metrics(checkpoint: Checkpoint) -> dict[str, float] | None:
    """Return the metrics of the last update, if its evaluation was interrupted."""
    pending = checkpoint.record["pending"] if checkpoint.score is None else None
    return pending and {k: math.nan if v is None else v for k, v in pending.items()}
