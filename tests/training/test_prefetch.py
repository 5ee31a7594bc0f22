"""Batches are prepared ahead by background threads, in order."""

import threading
import time

import numpy as np
import pytest

from dt_jax.training.batches import prefetch
from dt_jax.types import Batch


def make_batch(step: int) -> Batch:
    return Batch(
        *(np.full((2, 3), step + field) for field in range(len(Batch._fields)))
    )


def workers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("prefetch")]


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_batches_come_in_order(num_workers):
    def uneven(step: int) -> Batch:
        time.sleep(0.002 * (step % 3 == 0))  # later steps finish first
        return make_batch(step)

    batches = list(prefetch(uneven, range(4, 20), num_workers))
    assert len(batches) == 16
    for step, batch in zip(range(4, 20), batches, strict=True):
        for ours, theirs in zip(batch, make_batch(step), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert not workers()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_threads_prepare_at_most_twice_as_many_batches_ahead(num_workers):
    made = []
    batches = prefetch(
        lambda step: (made.append(step), make_batch(step))[1], range(50), num_workers
    )
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
        lambda step: (made.append(threading.current_thread()), make_batch(step))[1],
        range(50),
        0,
    )
    next(batches)
    assert made == [threading.current_thread()]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_exception_is_raised_at_its_item(num_workers):
    def fails(step: int) -> Batch:
        if step == 3:
            raise ValueError("step 3")
        return make_batch(step)

    batches = prefetch(fails, range(10), num_workers)
    for step in range(3):
        assert next(batches).states[0, 0] == step
    with pytest.raises(ValueError, match="step 3"):
        next(batches)
    assert not workers()


def test_closing_early_stops_the_threads():
    batches = prefetch(make_batch, range(1000), 2)
    next(batches)
    assert workers()
    batches.close()
    assert not workers()
