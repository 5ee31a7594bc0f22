import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_batches import alone, sampler  # noqa: F401

from dt_jax.agents.dt import (
    DecisionTransformerAgent,
    init_train_state,
    make_update,
)
from dt_jax.agents.optim import make_optimizer, make_schedule
from dt_jax.networks.decision_transformer import DecisionTransformer
from dt_jax.training import batches
from dt_jax.training.multi_step import MultiStep, step_chunks


@given(
    st.integers(0, 50),
    st.integers(0, 100),
    st.integers(1, 12),
    st.lists(st.integers(1, 30), min_size=1, max_size=3),
)
def test_calls_cover_the_steps_and_end_where_something_is_due(
    start, more, most, between
):
    calls = list(step_chunks(start, start + more, most, between))
    assert [step for call in calls for step in call] == [*range(start, start + more)]
    for call in calls:
        assert 1 <= len(call) <= most
        assert not any(step % n == 0 for step in call[1:] for n in between)
    shortest = sum(1 for call in calls if len(call) < most)
    dues = {s for s in range(start + 1, start + more) for n in between if s % n == 0}
    assert shortest <= len(dues) + 1  # none is cut short without need


def network(sampler):  # noqa: F811
    """Return an agent for the sampler's windows, an optimiser and its schedule."""
    data = sampler.data
    model = DecisionTransformer(
        action_size=2,
        seq_len=7,
        episode_len=60,
        embedding_dim=8,
        num_layers=1,
        num_heads=2,
        attention_dropout=0.0,  # each takes long to compile
        residual_dropout=0.0,
        embedding_dropout=0.1,
        max_action=1.0,
    )
    agent = DecisionTransformerAgent(model, data.state_mean, data.state_std, 0.1)
    schedule = make_schedule("warmup_cosine", 1e-2, 3, 10)
    return agent, make_optimizer(schedule, (0.9, 0.999), 1e-4, 0.25), schedule


@pytest.fixture
def training(sampler, alone):  # noqa: F811
    agent, optimizer, schedule = network(sampler)

    def start():
        init = jax.jit(
            lambda: init_train_state(agent, optimizer, 0), out_shardings=alone.state
        )
        return init()

    return make_update(agent, optimizer, schedule), start


def run(dispatch, state, calls):
    losses = []
    for steps in calls:
        state, metrics = dispatch(state, dispatch.inputs(steps), len(steps))
        losses += metrics["train_loss"][: len(steps)].tolist()
    return jax.tree.leaves((state.params, state.opt_state, state.step)), losses


def same(ours, theirs):
    return ours[1] == theirs[1] and all(map(np.array_equal, ours[0], theirs[0]))


def test_updates_have_the_same_bits_however_they_are_shared_out(
    training,
    sampler,  # noqa: F811
    alone,  # noqa: F811
):
    update, start = training
    dispatch = MultiStep(update, batches.DeviceBatches([sampler], alone), most=4)
    whole = run(dispatch, start(), [range(0, 4), range(4, 8)])
    apart = run(dispatch, start(), [range(0, 1), range(1, 4), range(4, 6), range(6, 8)])
    assert same(whole, apart)
    assert dispatch._program._cache_size() == 1  # compiled once
    host = run(
        MultiStep(update, batches.HostBatches([sampler], alone), most=3),
        start(),
        [range(0, 3), range(3, 6), range(6, 8)],
    )
    assert same(whole, host)


def test_updates_are_those_of_the_plain_loop(
    training,
    sampler,  # noqa: F811
    alone,  # noqa: F811
):
    update, start = training
    dispatch = MultiStep(update, batches.DeviceBatches([sampler], alone), most=4)
    leaves, losses = run(dispatch, start(), [range(0, 4), range(4, 5)])
    plain, state, expected = jax.jit(update), start(), []
    for step in range(5):
        state, metrics = plain(state, sampler.batch(step))
        expected.append(float(metrics["train_loss"]))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert len(set(losses)) == 5
    for ours, theirs in zip(leaves, jax.tree.leaves(state.params), strict=False):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert jnp.all(leaves[-1] == 5)
