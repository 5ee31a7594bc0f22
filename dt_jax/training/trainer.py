"""One run: its training state, and what is done with it at each step."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from signal import Signals

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dt_jax.agents.base import TrainState
from dt_jax.agents.dt import (
    DecisionTransformerAgent,
    Metrics,
    init_train_state,
    make_update,
)
from dt_jax.agents.optim import optimizer_of
from dt_jax.data.registry import EnvSpec
from dt_jax.data.sampler import Sampler
from dt_jax.data.trajectories import Trajectories
from dt_jax.datasets.load import Dataset
from dt_jax.evaluation.measurements import Measurements
from dt_jax.runs.aggregate import across_seeds
from dt_jax.runs.checkpoint import Checkpoint, CheckpointWriter
from dt_jax.runs.evaluations import forget_evaluations_after
from dt_jax.runs.folder import describe
from dt_jax.runs.metrics import MetricsLog
from dt_jax.training.batches import make_feed
from dt_jax.training.finite import FiniteCheck
from dt_jax.training.loggers import Loggers
from dt_jax.training.multi_step import Dispatch, share_out
from dt_jax.training.prefetch import prefetch
from dt_jax.training.progress import ProgressReport
from dt_jax.training.resume import owed
from dt_jax.types import Params
from dt_jax.utils import distributed
from dt_jax.utils.errors import UserError
from dt_jax.utils.sharding import place
from dt_jax.utils.signals import Stopped, StopRequest
from dt_jax.utils.versions import versions

_MOST_UNREAD = 1000  # updates whose metrics wait to be looked at


class Trainer:
    """Makes the updates, and evaluates, logs and saves when it is time to.

    Args:
      config: validated, without a key that is still left to the data.
      workdir: the run's folder.
      dataset: its trajectories.
      spec: the environment, if there is one.
      scaling: state_mean and state_std [S], action_center and action_scale [A]: what
        brings the data into the network's units.
      params: what all seeds begin with instead of freshly drawn parameters.

    Attributes:
      config: the run's.
      dataset: the identity of its data.
      agent: whose parameters are trained.

    Raises:
      UserError: the environment can't be built.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        dataset: Dataset,
        spec: EnvSpec | None,
        scaling: Mapping[str, np.ndarray],
        params: Params | None = None,
    ):
        self.config = config
        self.dataset = dataset.identity()
        self._workdir = workdir
        # What the parameters mean nothing without.
        self._record = {
            "config": config.to_dict(),
            **{key: array.tolist() for key, array in scaling.items()},
            "dataset": self.dataset,
            "versions": versions(),
        }
        self.agent = agent = DecisionTransformerAgent.from_config(config, **scaling)
        trained_on, held_out = dataset.trajectories, None
        if config.holdout_fraction:
            trained_on, held_out = trained_on.hold_out(config.holdout_fraction)

        def sampler(trajectories: Trajectories, seed: int) -> Sampler:
            return Sampler(
                trajectories,
                batch_size=config.batch_size,
                seq_len=config.seq_len,
                reward_scale=config.reward_scale,
                seed=seed,
                **scaling,
            )

        self._placement = placement = place(config)
        first, count = config.train_seed, config.num_seeds
        self._seeds = range(first, first + count)
        self._drawn_from = first if count == 1 else np.array(self._seeds)
        self._samplers = [sampler(trained_on, seed) for seed in self._seeds]
        self._measurements = Measurements(
            config,
            agent,
            spec,
            held_out=None if held_out is None else sampler(held_out, first),
        )
        optimizer, schedule = optimizer_of(config)
        init = partial(init_train_state, agent, optimizer)
        update = make_update(agent, optimizer, schedule)
        if count > 1:
            init, update = jax.vmap(init), jax.vmap(update)
        self._init = jax.jit(init, out_shardings=placement.state)
        self._params, self._update = params, update
        self._finite = FiniteCheck(workdir, self._samplers)
        self._saved = 0  # the step of the newest checkpoint
        # See `_save`; at first, an evaluation of the untouched initialisation.
        self._owed: dict[str, float] | None = {}

    def begin(self, last: Checkpoint | None) -> None:
        """Draw the state before the first update, or take over that of a checkpoint.

        Of several processes all do this together.

        Raises:
          UserError: the checkpoint's actions are in other units than today's
            environment's.
        """
        feed = make_feed(
            self._samplers, self._placement, self.config.device_memory_share
        )
        self._dispatch = Dispatch(self._update, feed, self.config.steps_per_dispatch)
        self._state = self._drawn() if last is None else self._restored(last)

    def _drawn(self) -> TrainState:
        state: TrainState = self._init(self._drawn_from)
        if self._params is None:
            return state
        shapes = jax.tree.map(jnp.shape, state.params)

        def of_each_seed(params: Params) -> Params:
            return jax.tree.map(jnp.broadcast_to, params, shapes)

        spread = jax.jit(of_each_seed, out_shardings=self._placement.state)
        return state.replace(params=spread(self._params))

    def _restored(self, checkpoint: Checkpoint) -> TrainState:
        before = checkpoint.record()
        for key in ("action_center", "action_scale"):
            if before[key] != self._record[key]:
                raise UserError(
                    f"{self._workdir}: {self.config.env_name} has other bounds on "
                    "actions than when the run began; choose another --workdir"
                )
        self._saved, self._owed = checkpoint.step, owed(checkpoint, before)
        placed = self._placement.state
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed),
            jax.eval_shape(self._init, self._drawn_from),
        )
        return TrainState(
            params=checkpoint.params(like.params),
            **checkpoint.train(like.beside_params),
        )

    @property
    def params(self) -> Params:
        """The network's parameters, as far as they are trained, on one device."""
        return self._placement.copy_here(self._state.params)

    @property
    def step(self) -> int:
        """Updates completed."""
        return int(np.max(jax.device_get(self._placement.copy_here(self._state.step))))

    def update_once(self) -> float:
        """Make the first update, without all that goes with a run; return its loss."""
        inputs = self._dispatch.inputs(range(1))
        self._state, metrics = self._dispatch(self._state, inputs, 1)
        return float(jnp.mean(metrics["train_loss"][0]))

    def run(self) -> None:
        """Make the updates that are left, and all that is due between them."""
        config, start = self.config, self.step
        if not self._measurements:
            print("nothing is evaluated: no episode is played, no trajectory held out")
        with distributed.all_or_none():
            if distributed.leads():
                about = self._record["versions"] | {"dataset": self.dataset}
                describe(self._workdir, config, about)
                forget_evaluations_after(start, self._workdir)
        inputs = prefetch(self._dispatch.inputs, self._calls(start), config.num_workers)
        # What is owed is written anew: a killed run may have done so already.
        logged = start if self._owed is None else start - 1
        with (
            # Closed last: while one waits for its server, all is saved, and a signal
            # ends the program at once.
            Loggers(config, self._workdir, up_to_step=logged) as self._loggers,
            StopRequest() as self._stop,
            CheckpointWriter(
                self._workdir / "checkpoints", config.keep_checkpoints
            ) as self._writer,
            MetricsLog(
                self._workdir / "metrics.jsonl" if distributed.leads() else None,
                up_to_step=logged,
            ) as self._log,
            ProgressReport(
                config.update_steps, start, shown=distributed.leads()
            ) as self._report,
            closing(inputs),
        ):
            if self._owed is not None:
                self._after(start, self._owed)
            # Compiled before the clock starts, which is to measure updates.
            self._dispatch.compile(self._state)
            self._start_clock(start)
            agreed = distributed.Agreement()
            unread = []  # metrics of updates, which may still be under way
            last_read = start
            for steps, mine in zip(self._calls(start), inputs, strict=True):
                self._state, metrics = self._dispatch(self._state, mine, len(steps))
                unread.append((metrics, len(steps)))
                step = steps.stop
                due = self._logs(step) or self._evaluates(step) or self._saves(step)
                asked = agreed(self._stop.received)
                if due or asked or step - last_read >= _MOST_UNREAD:
                    row, unread = self._read(unread, step), []
                    last_read = step
                    if due:
                        self._after(step, row)
                self._writer.poll()
                if asked:
                    raise self._stopped(asked, step)

    def _calls(self, start: int) -> Iterator[range]:
        """Yield the steps of each call, which ends where something is due."""
        config = self.config
        return share_out(
            start,
            config.update_steps,
            config.steps_per_dispatch,
            between=(config.log_every, config.eval_every, config.checkpoint_every),
        )

    def _logs(self, step: int) -> bool:
        return step % self.config.log_every == 0 or self._is_last(step)

    def _evaluates(self, step: int) -> bool:
        due = step % self.config.eval_every == 0 or self._is_last(step)
        return due and bool(self._measurements)

    def _saves(self, step: int) -> bool:
        due = step % self.config.checkpoint_every == 0 or self._is_last(step)
        return step > 0 and (due or self._evaluates(step))

    def _is_last(self, step: int) -> bool:
        return step == self.config.update_steps

    def _after(self, step: int, row: dict[str, float]) -> None:
        """Evaluate, log and save what is due; `row` is what the update measured."""
        self._report.update(step, row)
        metrics: dict[str, float] = {}
        score = None
        if self._evaluates(step):
            try:
                metrics, score = self._measure(step)
            except Stopped as stopped:
                raise self._stopped(stopped.signal, step, owed=row) from None
        if metrics or (row and self._logs(step)):
            self._log.write(step, row | metrics)
            self._loggers.write(step, row | metrics)
            self._start_clock(step)
        # Last, so that a run which goes on from here finds the row above.
        if self._saves(step):
            self._save(step, score)

    def _measure(self, step: int) -> tuple[dict[str, float], float]:
        """Return what an evaluation comes to, and by what checkpoints compare."""
        began = time.perf_counter()
        with self._report.doing("evaluating"):
            measured = self._measurements(
                self.params,
                say=lambda line: self._report.say(f"step {step}  {line}"),
                between_chunks=self._stop.check,
            )
        if measured.evaluation and distributed.leads():
            measured.evaluation.save(self._workdir / "eval" / f"{step}.npz")
        seconds = time.perf_counter() - began
        return measured.metrics | {"eval/seconds": seconds}, measured.score

    def _save(
        self, step: int, score: float | None, owed: dict[str, float] | None = None
    ) -> None:
        """Begin to save a checkpoint; of one that is there, only add the score.

        Args:
          step: updates completed.
          score: of this step's evaluation, if there was one.
          owed: what the update of this step measured, if its evaluation was broken off:
            a run that goes on from here first makes up for that.
        """
        if step == self._saved:
            self._writer.rate(step, score)
            return
        self._finite.params(self._state.params, step)
        record = self._record | {"step": step, "owed": owed}
        state = self._state
        self._writer.save(step, state.params, state.beside_params, record, score=score)
        self._saved = step

    def _stopped(
        self, asked: Signals, step: int, owed: dict[str, float] | None = None
    ) -> Stopped:
        """Save where the run stands, and return what to leave it with."""
        if step == 0:
            return Stopped(asked, " before the first update; nothing is lost")
        if step != self._saved:
            self._save(step, None, owed)
        self._writer.confirm()
        return Stopped(
            asked, f" after {step} updates, all saved: the same command goes on"
        )

    def _read(self, unread: list[tuple[Metrics, int]], step: int) -> dict[str, float]:
        """Return the metrics of update `step`, after a look at all since the last.

        Raises:
          UserError: one of them made a loss or a gradient that is not finite.
        """
        calls = [
            {name: values[:count] for name, values in metrics.items()}
            for metrics, count in jax.device_get(unread)
        ]
        read = {name: np.concatenate([c[name] for c in calls]) for name in calls[0]}
        self._finite.metrics(read, step)
        last = {name: values[-1] for name, values in read.items()}
        row = across_seeds(self._seeds, last)
        seconds = time.perf_counter() - self._clock
        return row | {"steps_per_second": (step - self._clock_step) / seconds}

    def _start_clock(self, step: int) -> None:
        self._clock, self._clock_step = time.perf_counter(), step
