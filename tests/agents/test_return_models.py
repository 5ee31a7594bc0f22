"""Agents that learn returns: what moves in each phase, and what labels depend on."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dt_jax.agents import agent_class
from dt_jax.agents.base import Trained
from dt_jax.agents.multi_seed import MultiSeedAgent
from dt_jax.config import default_config
from dt_jax.data.labels import round_labels
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.sampler import Sampler
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories
from dt_jax.utils.errors import UserError

S, A = 5, 2
LENGTHS = 3, 1, 5, 4
SMALL = {
    "cluster_return": {"cluster_groups": 2, "cluster_classes": 3, "cluster_updates": 2},
    "expected_return": {},
}


def trajectories(seed=0):
    rng, rows = np.random.default_rng(seed), sum(LENGTHS)
    raw = RawData(
        observations=rng.normal(3, 2, (rows, S)).astype(np.float32),
        actions=rng.uniform(-1, 1, (rows, A)).astype(np.float32),
        rewards=rng.normal(size=rows).astype(np.float32),
        terminals=np.isin(np.arange(1, rows + 1), np.cumsum(LENGTHS)),
        timeouts=np.zeros(rows, bool),
    )
    return Trajectories.from_raw(raw, source="random")


def make(name="cluster_return", episode_len=5):
    """Return a small agent in the units of `trajectories`."""
    data = trajectories()
    normalizer = Normalizer(
        data.state_mean,
        data.state_std,
        np.zeros(A, np.float32),
        np.ones(A, np.float32),
        reward_scale=0.5,
    )
    config = default_config(
        name,
        return_dim=8,
        return_lr=1e-2,
        episode_len=episode_len,
        **SMALL[name],
    )
    return agent_class(name).from_config(config, normalizer)


def batches(agent, seed=0):
    return Sampler(
        trajectories(),
        agent.normalizer,
        batch_size=4,
        context_len=agent.context_len,
        seed=seed,
        fields=agent.batch_fields,
        kind=agent.batch_kind,
    )


@cache
def trained(name, updates, seed=0):
    """Return the states before and after each of several updates, and the metrics."""
    agent = make(name)
    sampler, update, rows = batches(agent, seed), jax.jit(agent.update), []
    states = [jax.jit(agent.init)(jax.random.key(seed))]
    for step in range(updates):
        state, metrics = update(states[-1], sampler.batch(step))
        states.append(state)
        rows.append(metrics)
    return states, rows


def differ(a, b):
    return {
        name: any(
            (x != y).any()
            for x, y in zip(
                jax.tree.leaves(a[name]), jax.tree.leaves(b[name]), strict=True
            )
        )
        for name in a
    }


def test_returns_are_learned_after_the_clusters_and_dynamics_throughout():
    states, metrics = trained("cluster_return", 4)
    moved = [differ(before.params, after.params) for before, after in pairwise(states)]
    clusters = {
        "cluster": True,
        "action": True,
        "returns": False,
        "dynamics": True,
        "statistics": True,
    }
    returns = clusters | {"cluster": False, "action": False, "returns": True}
    assert moved == [clusters, clusters, returns, returns]
    same = [row["train_loss"] == row["return_loss"] for row in metrics]
    assert same == [False, False, True, True]


def test_labels_of_esper_are_rounded_in_units_of_reward():
    """By default to a tenth in scaled returns, which is 0.2 in units of reward."""
    agent, data = make(), trajectories()
    params = agent.acting_params(trained("cluster_return", 4)[0][-1])
    stage = {"returns": Trained(agent, params)}

    def labels(step):
        config = default_config("esper", label_rounding=step)
        return agent_class("esper").make_labels(config, stage, data).values

    exact = labels(0)
    for step, unit in ((None, 0.2), (0.5, 0.5)):
        expected = np.round(exact / unit) * unit
        np.testing.assert_allclose(labels(step), expected, atol=1e-6)
        assert np.abs(exact - expected).max() > 1e-3


def test_clusters_are_soft_at_first_and_then_samples():
    agent, params = make(), trained("cluster_return", 4)[0][0].params
    batch = batches(agent).batch(0)
    draws = agent.draw(jax.random.key(0), batch.mask)
    forward = jax.jit(agent.forward)
    soft, hard = (
        forward(params, batch, draws, jnp.array(hard))[0].clusters
        for hard in (False, True)
    )
    assert set(np.unique(hard)) == {0, 1}
    assert ((soft > 0) & (soft < 1)).all()
    for clusters in soft, hard:
        np.testing.assert_allclose(clusters.sum(axis=-1), 2, 1e-6)  # one of each group


def test_past_steps_are_uniform_up_to_the_present_one():
    agent = make()
    mask = np.zeros((3, 6), np.float32)
    mask[0, :3] = mask[1, :1] = mask[2, :5] = 1
    keys = jax.random.split(jax.random.key(0), 3000)
    past = np.asarray(jax.vmap(lambda key: agent.draw(key, mask).past)(keys))
    # The first episode is at slots 3 to 5.
    for slot, shares in (3, [1]), (4, [1 / 2] * 2), (5, [1 / 3] * 3):
        for use in range(3):
            steps = past[:, use, 0, slot]
            counts = np.bincount(steps, minlength=6) / len(steps)
            np.testing.assert_allclose(counts[:3], 0)
            np.testing.assert_allclose(counts[3 : slot + 1], shares, atol=0.04)
    assert (past[:, 0] != past[:, 1]).any()
    assert past.max() < 6


@pytest.mark.parametrize("name", SMALL)
def test_labels_do_not_depend_on_other_trajectories(name):
    agent, data = make(name), trajectories()
    params = trained(name, 4)[0][-1].params
    labels = agent.labels(params, data)
    assert labels.shape == (sum(LENGTHS),)
    assert len(set(labels.tolist())) == sum(LENGTHS)
    changed = data.observations.copy()
    changed[3] += 100  # the second one, of one step
    others = agent.labels(params, replace(data, observations=changed))
    assert np.flatnonzero(labels != others).tolist() == [3]
    # A subset, whose rows are those of the whole file.
    subset = replace(data, starts=data.starts[2:], lengths=data.lengths[2:])
    subset = replace(subset, terminated=data.terminated[2:])
    of_subset = agent.labels(params, subset)
    assert (of_subset[:4] == 0).all()
    assert (of_subset[4:] != 0).all()


def test_padding_does_not_count_in_the_losses():
    agent, longer = make(), make(episode_len=10)
    params = trained("cluster_return", 4)[0][-1].params
    found = []
    for each in agent, longer:
        batch = batches(each).gather(trajectories().starts)
        batch = batch._replace(returns_to_go=batch.returns_to_go + 7 * (1 - batch.mask))
        gumbel = np.zeros((*batch.mask.shape, 2, 3), np.float32)
        predicted = each.predict_with(params, batch, gumbel)
        errors = each.validation_loss(params, batch)
        assert errors.shape == (*batch.mask.shape, 1)
        assert (errors[batch.mask == 0] == 0).all()
        found.append(predicted[batch.mask > 0])
    np.testing.assert_allclose(*found, rtol=1e-5)

    batch = batches(agent).gather(trajectories().starts)
    draws, hard = agent.draw(jax.random.key(0), batch.mask), jnp.array(True)
    loss = jax.jit(agent.loss)
    _, (metrics, _) = loss(params, batch, draws, hard)
    other = batch._replace(returns_to_go=batch.returns_to_go + 7 * (1 - batch.mask))
    _, (same, _) = loss(params, other, draws, hard)
    assert metrics == same


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.slow
def test_seeds_side_by_side_are_those_of_separate_runs(name):
    """By their losses: Adam makes steps of the rounding of small gradients."""
    agent = make(name)
    several = MultiSeedAgent(agent, 2)
    state = jax.jit(several.init)(jax.vmap(jax.random.key)(jnp.arange(2)))
    samplers, update = [batches(agent, i) for i in range(2)], jax.jit(several.update)
    losses = []
    for step in range(4):
        each = [sampler.batch(step) for sampler in samplers]
        state, metrics = update(state, jax.tree.map(lambda *x: np.stack(x), *each))
        losses.append(metrics)
    for i in range(2):
        _, alone = trained(name, 4, seed=i)
        for ours, theirs in zip(losses, alone, strict=True):
            for loss in theirs:
                np.testing.assert_allclose(ours[loss][i], theirs[loss], rtol=2e-3)
    assert (losses[0]["train_loss"][0] != losses[0]["train_loss"][1]).all()


@pytest.mark.parametrize("name", SMALL)
def test_the_mean_return_is_learned(name):
    agent = make(name)
    states, _ = trained(name, 300)
    batch = batches(agent).gather(trajectories().starts)
    before, after = (
        float(agent.validation_loss(states[i].params, batch).sum()) for i in (2, -1)
    )
    assert after < before / 3


@pytest.mark.parametrize("name", SMALL)
def test_it_does_not_act(name):
    agent = make(name)
    arrays = jnp.zeros((1, S)), jnp.zeros(1), jnp.ones(1, bool)
    with pytest.raises(UserError, match="this run learned labels and does not act"):
        agent.act(None, agent.start(None, None), *arrays)


def test_labels_are_rounded_to_multiples_of_a_step():
    labels = np.array([0.96, -0.53, 1.04], np.float32)
    np.testing.assert_allclose(round_labels(labels, 0.1), [1.0, -0.5, 1.0], rtol=1e-6)
    assert round_labels(labels, 0.1).dtype == np.float32
    assert round_labels(labels, 0) is labels
