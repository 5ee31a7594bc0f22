"""Several updates in one call: the same bits as any other number per call."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from updates import B, make_agent, make_sampler, run_updates

from dt_jax.training.batches import DeviceBatches, HostBatches
from dt_jax.training.multi_step import MultiStep, step_chunks
from dt_jax.utils.sharding import RunSharding


@given(
    st.integers(0, 50),
    st.integers(0, 100),
    st.integers(1, 12),
    st.lists(st.integers(1, 30), min_size=1, max_size=3),
)
def test_chunks_cover_the_steps_and_end_at_the_boundaries(
    start, more, most, boundaries
):
    chunks = list(step_chunks(start, start + more, most, boundaries))
    steps = [step for chunk in chunks for step in chunk]
    assert steps == [*range(start, start + more)]
    for chunk in chunks:
        assert 1 <= len(chunk) <= most
        assert not any(step % n == 0 for step in chunk[1:] for n in boundaries)
    shorter = sum(1 for chunk in chunks if len(chunk) < most)
    inside = range(start + 1, start + more)
    assert shorter <= 1 + sum(any(s % n == 0 for n in boundaries) for s in inside)


@pytest.fixture
def sampler():
    return make_sampler()


@pytest.fixture
def sharding():
    return RunSharding(jax.devices()[:1], num_seeds=1, batch_size=B)


def initial_state(agent, sharding):
    init = jax.jit(agent.init, out_shardings=sharding.state)
    return init(jax.random.key(0))


def assert_same_bits(ours, theirs):
    assert ours[1] == theirs[1]
    for a, b in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_updates_have_the_same_bits_for_every_chunking(sampler, sharding):
    """On the host and on the device, with two limits."""
    agent = make_agent()

    def run(multi_step, *calls):
        return run_updates(multi_step, initial_state(agent, sharding), calls)

    on_device = MultiStep(agent.update, DeviceBatches([sampler], sharding), most=4)
    whole = run(on_device, range(0, 4), range(4, 8))
    apart = run(on_device, range(0, 1), range(1, 4), range(4, 6), range(6, 8))
    assert_same_bits(whole, apart)
    assert on_device._program._cache_size() == 1  # compiled once
    on_host = MultiStep(agent.update, HostBatches([sampler], sharding), most=3)
    assert_same_bits(whole, run(on_host, range(0, 3), range(3, 6), range(6, 8)))


def test_updates_are_those_of_a_plain_loop(sampler, sharding):
    agent = make_agent()
    multi_step = MultiStep(agent.update, DeviceBatches([sampler], sharding), most=4)
    leaves, losses = run_updates(
        multi_step, initial_state(agent, sharding), [range(0, 4), range(4, 5)]
    )
    update, state, expected = jax.jit(agent.update), initial_state(agent, sharding), []
    for step in range(5):
        state, metrics = update(state, sampler.batch(step))
        expected.append(float(metrics["train_loss"]))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert len(set(losses)) == 5
    theirs = jax.tree.leaves((state.params, state.opt_state, state.step))
    for a, b in zip(leaves, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert leaves[-1] == 5
