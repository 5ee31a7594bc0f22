"""Batches made by background threads while the device is busy."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

import jax

from dt_jax.types import Batch


def prefetch(
    make_batch: Callable[[int], Batch], steps: range, num_workers: int
) -> Generator[Batch, None, None]:
    """Yield the batches of `steps` in order, each on the default device already.

    Args:
      make_batch: step -> batch of NumPy arrays, called in any thread; it must not
        write to the arrays later. What it raises is raised here.
      steps: the steps to make batches for.
      num_workers: threads; together they are at most twice as many batches ahead. With
        0 each batch is made when it is asked for, in the caller's thread.
    """

    def make(step: int) -> Batch:
        return jax.device_put(make_batch(step))

    if num_workers == 0:
        yield from map(make, steps)
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="prefetch")
    ahead: deque[Future[Batch]] = deque()
    try:
        for step in steps:
            ahead.append(pool.submit(make, step))
            if len(ahead) > 2 * num_workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:  # also when the consumer stops early, or a batch failed
        pool.shutdown(cancel_futures=True)
