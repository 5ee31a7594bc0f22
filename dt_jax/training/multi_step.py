"""Several updates in one call of a compiled program."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dt_jax.agents.base import TrainState
from dt_jax.agents.dt import Metrics
from dt_jax.training.batches import Feed
from dt_jax.types import Array, Batch

Update = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


class Dispatch:
    """Makes up to `most` updates in a call, each on its own batch.

    How many is not compiled in. So there is one program, and a run's updates have the
    same bits however they are shared out among the calls, as a run needs that goes on
    from between them.
    """

    def __init__(self, update: Update, feed: Feed, most: int):
        self._feed, self._most = feed, most

        def program(
            state: TrainState, data: Any, inputs: Any, count: Array
        ) -> tuple[TrainState, Metrics]:
            def one(i: Array, carry: tuple[TrainState, Metrics]) -> Any:
                state, metrics = carry
                batch = feed.batch(data, jax.tree.map(lambda x: x[i], inputs))
                state, new = update(state, batch)
                return state, jax.tree.map(lambda m, x: m.at[i].set(x), metrics, new)

            first = jax.tree.map(lambda x: x[0], inputs)
            shapes = jax.eval_shape(update, state, feed.batch(data, first))[1]
            metrics = jax.tree.map(
                lambda x: jnp.zeros((most, *x.shape), x.dtype), shapes
            )
            return jax.lax.fori_loop(0, count, one, (state, metrics))

        placement = feed.placement
        self._program: Any = jax.jit(
            program,
            donate_argnums=0,
            out_shardings=(placement.state, placement.everywhere),
        )

    def compile(self, state: TrainState) -> None:
        """Compile the program now rather than at the first call."""
        inputs = self.inputs(range(1))
        lowered = self._program.lower(state, self._feed.data, inputs, np.int32(1))
        self._program = lowered.compile()

    def inputs(self, steps: range) -> Any:
        """Return what the program needs for the updates after `steps` others.

        It is on the devices already; other processes send their part of it themselves.
        """
        each = [self._feed.inputs(step) for step in steps]
        each += each[:1] * (self._most - len(each))  # not looked at
        mine = jax.tree.map(lambda *arrays: np.stack(arrays), *each)
        return self._feed.placement.send(mine)

    def __call__(
        self, state: TrainState, inputs: Any, count: int
    ) -> tuple[TrainState, Metrics]:
        """Make updates.

        Args:
          state: before them; its memory is given away.
          inputs: as from `inputs`.
          count: how many steps that was for.

        Returns:
          The state after them, and the metrics of each, of which the first `count`
          count.
        """
        return self._program(state, self._feed.data, inputs, np.int32(count))


def share_out(
    start: int, stop: int, most: int, between: Sequence[int]
) -> Iterator[range]:
    """Yield the steps of each call, from `start` to before `stop`.

    Args:
      start: the first.
      stop: the one after the last.
      most: steps in a call.
      between: no call goes on beyond a multiple of one of these.
    """
    while start < stop:
        due = [start - start % n + n for n in between]
        end = min(start + most, stop, *due)
        yield range(start, end)
        start = end
