"""Batches are prepared ahead by background threads, in order."""

import threading
import time

import pytest

from dt_jax.training.batches import prefetch


def workers():
    return [t for t in threading.enumerate() if t.name.startswith("prefetch")]


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_batches_come_in_order(num_workers):
    def uneven(step):
        time.sleep(0.002 * (step % 3 == 0))  # later steps finish first
        return 10 * step

    batches = prefetch(uneven, range(4, 20), num_workers)
    assert list(batches) == [10 * step for step in range(4, 20)]
    assert not workers()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_threads_prepare_at_most_twice_as_many_batches_ahead(num_workers):
    made = []
    batches = prefetch(made.append, range(50), num_workers)
    for taken in range(1, 6):
        next(batches)
        deadline = time.monotonic() + 5
        while len(made) < taken + 2 * num_workers and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01)  # in which one batch too many would be made
        assert len(made) == taken + 2 * num_workers
    batches.close()


def test_without_workers_batches_are_made_on_demand_in_the_callers_thread():
    made = []
    batches = prefetch(
        lambda step: made.append(threading.current_thread()), range(50), 0
    )
    next(batches)
    assert made == [threading.current_thread()]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_exception_is_raised_at_its_item(num_workers):
    def fails(step):
        if step == 3:
            raise ValueError("step 3")
        return step

    batches = prefetch(fails, range(10), num_workers)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="step 3"):
        next(batches)
    assert not workers()


def test_closing_early_stops_the_threads():
    batches = prefetch(str, range(1000), 2)
    next(batches)
    assert workers()
    batches.close()
    assert not workers()
