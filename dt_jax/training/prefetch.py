"""What background threads make while the device is busy."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(
    make: Callable[[Item], Made], items: Iterable[Item], num_workers: int
) -> Generator[Made, None, None]:
    """Yield what is made of each item, in order.

    Args:
      make: called in any thread; what it raises is raised here.
      items: the steps to make batches for, say.
      num_workers: threads; together they are at most twice as many items ahead. With
        0 each is made when it is asked for, in the caller's thread.
    """
    if num_workers == 0:
        yield from map(make, items)
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="prefetch")
    ahead: deque[Future[Made]] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(make, item))
            if len(ahead) > 2 * num_workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:  # also when the consumer stops early, or a batch failed
        pool.shutdown(cancel_futures=True)
