"""Batches made by background threads while the device is busy."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax

Item = TypeVar("Item")


def prefetch(
    make: Callable[[Item], Any], items: Iterable[Item], num_workers: int
) -> Generator[Any, None, None]:
    """Yield what is made of each item, in order, on the default device already.

    Args:
      make: item -> pytree of NumPy arrays, called in any thread; it must not write to
        the arrays later. What it raises is raised here.
      items: the steps to make batches for, say.
      num_workers: threads; together they are at most twice as many items ahead. With
        0 each is made when it is asked for, in the caller's thread.
    """

    def make_and_send(item: Item) -> Any:
        return jax.device_put(make(item))

    if num_workers == 0:
        yield from map(make_and_send, items)
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="prefetch")
    ahead: deque[Future[Any]] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(make_and_send, item))
            if len(ahead) > 2 * num_workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:  # also when the consumer stops early, or a batch failed
        pool.shutdown(cancel_futures=True)
