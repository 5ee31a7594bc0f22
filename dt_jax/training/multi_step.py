"""Several updates in one call of a compiled program."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dt_jax.agents.base import Metrics, TrainState
from dt_jax.training.batches import Batches
from dt_jax.types import Array, Batch

Update = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


class MultiStep:
    """Makes up to `most` updates per call, each on its own batch.

    Their number is not compiled in: there is one program, and results are bitwise
    independent of the chunking, so that a run can be resumed between any two updates.
    """

    def __init__(self, update: Update, batches: Batches, most: int):
        self._batches, self._most = batches, most
        update = jax.jit(update, inline=True)  # traced once, for both uses below

        def program(
            state: TrainState, dataset: Any, inputs: Any, count: Array
        ) -> tuple[TrainState, Metrics]:
            def one(i: Array, carry: tuple[TrainState, Metrics]) -> Any:
                state, metrics = carry
                batch = batches.batch(dataset, jax.tree.map(lambda x: x[i], inputs))
                state, new = update(state, batch)
                return state, jax.tree.map(lambda m, x: m.at[i].set(x), metrics, new)

            first = jax.tree.map(lambda x: x[0], inputs)
            shapes = jax.eval_shape(update, state, batches.batch(dataset, first))[1]
            metrics = jax.tree.map(
                lambda x: jnp.zeros((most, *x.shape), x.dtype), shapes
            )
            return jax.lax.fori_loop(0, count, one, (state, metrics))

        sharding = batches.sharding
        self._program: Any = jax.jit(
            program,
            donate_argnums=0,
            out_shardings=(sharding.state, sharding.replicated),
        )

    def compile(self, state: TrainState) -> None:
        """Compile the program now instead of at the first call."""
        inputs = self.inputs(range(1))
        lowered = self._program.lower(state, self._batches.dataset, inputs, np.int32(1))
        self._program = lowered.compile()

    def inputs(self, steps: range) -> Any:
        """Return the program's inputs for the updates after `steps` others.

        They are on the devices; other processes send their part themselves.
        """
        each = [self._batches.inputs(step) for step in steps]
        each += each[:1] * (self._most - len(each))  # not used
        local = jax.tree.map(lambda *arrays: np.stack(arrays), *each)
        return self._batches.sharding.send(local)

    def __call__(
        self, state: TrainState, inputs: Any, count: int
    ) -> tuple[TrainState, Metrics]:
        """Make `count` updates on the results of `inputs`; the state is donated.

        Returns:
          The state after them, and the metrics of each; the first `count` are valid.
        """
        return self._program(state, self._batches.dataset, inputs, np.int32(count))


def step_chunks(
    start: int, stop: int, most: int, boundaries: Sequence[int]
) -> Iterator[range]:
    """Yield the steps of each call, at most `most`, from `start` to before `stop`.

    No call crosses a multiple of one of the boundaries.
    """
    while start < stop:
        next_due = [start - start % n + n for n in boundaries]
        end = min(start + most, stop, *next_due)
        yield range(start, end)
        start = end
