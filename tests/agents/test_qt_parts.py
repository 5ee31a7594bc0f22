"""What the parts of the Q-value regularised Transformer do, one by one."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from qt_agent import golden_agent

from dt_jax.networks.critics import apply
from dt_jax.types import Batch


@pytest.fixture
def small():
    """Return an agent of two layers and heads, its acting parameters and a batch."""
    return make_small()


def make_small(**changes):
    sizes = {
        **{"state_dim": 5, "act_dim": 2, "K": 4, "max_ep_len": 12, "hidden_size": 8},
        **{"n_layer": 2, "n_head": 2, "scale": 10.0, "batch_size": 3, "T_max": 10},
        **{"steps_per_iter": 1, "learning_rate": 1e-3, "critic_learning_rate": 1e-3},
        **{"weight_decay_l2": 0.0, "grad_norm": 1.0, "eta": 1.0, "discount": 0.9},
        **{"tau": 0.1, "ema_decay": 0.9, "update_ema_every": 1, "step_start_ema": 0},
        "candidates": 50,
    }
    units = {
        "dataset/state_mean": np.zeros(5, np.float32),
        "dataset/state_std": np.ones(5, np.float32),
    }
    agent = golden_agent(units, sizes, **changes)
    params = jax.jit(lambda key: agent.acting_params(agent.init(key)))(
        jax.random.key(1)
    )
    params = jax.tree.map(lambda p: 8 * p if p.ndim > 1 else p, params)
    rng = np.random.default_rng(0)
    length = np.array([4, 2, 1])  # valid steps
    mask = (np.arange(4) < length[:, None]).astype(np.float32)
    batch = Batch(
        states=rng.normal(size=(3, 4, 5)).astype(np.float32) * mask[..., None],
        actions=rng.uniform(-1, 1, (3, 4, 2)).astype(np.float32) * mask[..., None],
        returns_to_go=rng.normal(size=(3, 4)).astype(np.float32) * mask,
        timesteps=np.tile(np.arange(4, dtype=np.int32), (3, 1)),
        mask=mask,
        rewards=rng.normal(size=(3, 4)).astype(np.float32) * mask,
        terminals=np.zeros((3, 4), np.float32),
        next_states=rng.normal(size=(3, 4, 5)).astype(np.float32),
        has_next=(np.arange(4) < length[:, None] - 1).astype(np.float32),
        episode_returns=np.array([[1.0], [2.0], [3.0]], np.float32) * mask,
    )
    return agent, params, batch


def ended(batch, row, last):
    """Return the batch with a termination at a row's last step."""
    terminals = batch.terminals.copy()
    terminals[row, last] = 1
    return batch._replace(terminals=terminals)


@pytest.mark.parametrize("k_rewards", [True, False])
def test_a_reward_at_a_termination_reaches_the_critic(k_rewards):
    agent, params, batch = make_small(k_rewards=k_rewards)
    compiled = jax.jit(agent.targets)

    def targets(params, batch):
        return map(np.asarray, compiled(params, batch))

    _, before = targets(params, batch)
    batch = ended(ended(batch, 1, 1), 2, 0)
    y, valid = targets(params, batch)
    assert (before[1:, :2] == [[1, 0], [0, 0]]).all()  # without: only bootstrapped from
    assert (valid[1:, :2] == [[1, 1], [1, 0]]).all()
    np.testing.assert_allclose(y[[1, 2], [1, 0]], batch.rewards[[1, 2], [1, 0]])
    rewards = batch.rewards.copy()
    rewards[1, 1] += 1
    more, _ = targets(params, batch._replace(rewards=rewards))
    np.testing.assert_allclose(more[1, 1] - y[1, 1], 1, rtol=1e-5)
    if k_rewards:  # and from there the step before it
        np.testing.assert_allclose(more[1, 0] - y[1, 0], 0.9, rtol=1e-5)


@pytest.mark.parametrize("k_rewards", [True, False])
def test_targets_equal_a_loop_over_the_steps(k_rewards):
    agent, params, batch = make_small(k_rewards=k_rewards)
    batch = ended(batch, 1, 1)

    @jax.jit
    def targets(params):
        window = batch if k_rewards else agent._next_window(batch)
        actions, _ = agent._predict(params["actor"], window)
        value = agent._policy_q(params["critic"], window, actions).min(axis=0)
        return *agent.targets(params, batch), value

    y, valid, value = map(np.asarray, targets(params))
    for b, length in enumerate([4, 2, 1]):
        following = None
        for i in reversed(range(length)):
            ends = batch.terminals[b, i] == 1
            if k_rewards:
                later = following
                following = value[b, i] if i == length - 1 else None
                if ends or i < length - 1:
                    following = batch.rewards[b, i] + 0.9 * (0 if ends else later)
                expected, counts = following, ends or i < length - 1
            else:
                expected = batch.rewards[b, i] + 0.9 * (1 - ends) * value[b, i]
                counts = ends or batch.has_next[b, i] == 1
            np.testing.assert_allclose(y[b, i], expected, rtol=1e-5)
            assert valid[b, i] == counts
        assert not valid[b, length:].any()


def test_padding_reaches_no_loss():
    for mode in "qt", "qcs":
        agent, params, batch = make_small(mode=mode, k_rewards=True)
        batch = ended(batch, 1, 1)
        hidden = batch.mask == 0

        def noisy(x, hidden=hidden):
            noise = np.random.default_rng(1).normal(size=x.shape).astype(x.dtype)
            where = hidden.reshape(hidden.shape + (1,) * (x.ndim - 2))
            return np.where(where, noise, x)

        fields = "states", "actions", "returns_to_go", "rewards", "next_states"
        other = batch._replace(**{x: noisy(getattr(batch, x)) for x in fields})

        @jax.jit
        def losses(batch, agent=agent, params=params):
            actor, critic = params["actor"], params["critic"]
            if agent.mode == "qcs":
                return agent.qcs_loss(actor, critic, batch, None)[0]
            y, valid = agent.targets(params, batch)
            coin = jnp.asarray(True)
            loss, _ = agent.actor_loss(actor, critic, batch, coin, None)
            return loss, agent.critic_loss(critic, batch, y, valid)

        np.testing.assert_allclose(losses(batch), losses(other), rtol=1e-5)


def test_qcs_weighs_q_by_the_distance_to_the_best_return():
    changes = {"q_scale": 0.5, "q_min": 10.0, "best_return": 30.0, "return_range": 50.0}
    agent, params, batch = make_small(mode="qcs", **changes)

    @jax.jit
    def compute(params):
        predicted, _ = agent._predict(params["actor"], batch)
        q = agent._policy_q(params["critic"], batch, predicted).min(axis=0)
        losses = agent.qcs_loss(params["actor"], params["critic"], batch, None)
        return losses, predicted, q

    (loss, parts), predicted, q = jax.device_get(compute(params))
    valid = batch.mask.astype(bool)
    # Returns of 10, 20 and 30: 40, 20 and 0 percent below the best, 10 at least.
    weights = 0.5 * np.array([[40.0], [20.0], [10.0]]) / np.abs(q[valid]).mean()
    errors = np.square(predicted - batch.actions).mean(axis=-1)
    expected = (errors - weights * q)[valid].mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(parts["action_loss"], errors[valid].mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("heads", "layers"),
    [(2, 1)]
    + [
        pytest.param(*sizes, marks=pytest.mark.slow)
        for sizes in [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3)]
    ],
)
def test_candidates_equal_the_window_repeated_for_each(heads, layers):
    compare_candidates(num_layers=layers, num_heads=heads)


@pytest.mark.parametrize(
    "network",
    [
        {"mixer": "conv"},
        pytest.param({"attention_band": 2, "num_layers": 3}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_ring_cache_of_candidates_equals_the_window_repeated_for_each(network):
    compare_candidates(**network)


def test_candidates_that_are_all_the_prompt_act_as_the_plain_policy():
    """Over several timesteps: the context has what the plain one has."""
    agent, params, _ = make_small(candidate_std=0.0)
    plain = replace(agent, num_candidates=1)
    rng, keys = np.random.default_rng(0), jax.random.split(jax.random.key(0), 2)
    targets = jnp.asarray([3.0, -4.0])
    contexts = [each.start(targets, keys) for each in (agent, plain)]
    acts = [jax.jit(each.act) for each in (agent, plain)]
    for t in range(6):
        inputs = rng.normal(size=(2, 5)), rng.normal(size=2), np.array([t == 3, False])
        found = []
        for i, act in enumerate(acts):
            contexts[i], actions = act(params, contexts[i], *inputs)
            found.append(actions)
        np.testing.assert_allclose(*found, atol=1e-6)
        assert np.abs(found[0]).max() < 1


def compare_candidates(**network):
    """In float64, at every step from the first on."""
    with jax.enable_x64(True):
        agent, _, _ = make_small()
        agent = replace(agent, model=agent.model.clone(**network))
        actor = jax.jit(agent.init_params)(jax.random.key(1))
        actor = jax.tree.map(
            lambda p: p.astype(float) * (8 if p.ndim > 1 else 1), actor
        )
        rng = np.random.default_rng(0)
        states, rewards = rng.normal(size=(7, 2, 5)), rng.normal(size=(7, 2))
        keys = jax.random.split(jax.random.key(0), 2)
        context = agent.start(jnp.asarray([3.0, -4.0]), keys)
        seen_returns, seen_actions = [], []
        observe, step = jax.jit(agent._observe), jax.jit(agent._step)
        naive_of = jax.jit(lambda *inputs: agent._apply(actor, *inputs))
        for t in range(7):
            context, seen = observe(context, states[t], rewards[t], np.zeros(2, bool))
            returns = context.next_return[:, None] + rng.normal(size=(2, 49))
            returns = jnp.concatenate([context.next_return[:, None], returns], axis=1)
            cache, actions = step(actor, context, seen, returns)
            seen_returns.append(np.asarray(context.next_return))
            window = slice(max(t - 3, 0), t + 1)
            for episode in range(2):
                all_returns = np.tile(np.array(seen_returns)[window, episode], (50, 1))
                all_returns[:, -1] = returns[episode]
                taken = [a[episode] for a in seen_actions[window]] + [np.zeros(2)]
                n = all_returns.shape[1]
                naive = naive_of(
                    jnp.asarray(np.tile(states[window, episode], (50, 1, 1))),
                    jnp.asarray(np.tile(np.array(taken)[-n:], (50, 1, 1))),
                    jnp.asarray(all_returns),
                    jnp.tile(jnp.arange(t + 1 - n, t + 1, dtype=jnp.int32), (50, 1)),
                )[:, -1]
                np.testing.assert_allclose(actions[episode], naive, atol=1e-12)
            chosen = np.asarray(actions)[:, t]
            seen_actions.append(chosen)
            context = context._replace(cache=cache, actions=jnp.asarray(chosen))


def test_the_choice_is_independent_of_the_scale_and_offset_of_q(small):
    agent, params, _ = small
    rng = np.random.default_rng(0)
    states, actions = rng.normal(size=(3, 5)), rng.uniform(-1, 1, size=(3, 15, 2))
    shares = jax.vmap(agent.draw_candidates)(jax.random.split(jax.random.key(0), 3))
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    assert (shares[:, 0] >= 1 / 50).all()  # the prompt itself
    inputs = [jnp.asarray(x, jnp.float32) for x in (states, actions, shares)]
    logits = agent.candidate_logits(params["critic"], *inputs)
    # Scale and shift the critic's output layer.
    *_, last = sorted(params["critic"]["q"])
    for scale, offset in ((1000.0, 0.0), (1e-3, 0.0), (1.0, 5.0)):
        output = params["critic"]["q"][last]
        output = {"kernel": scale * output["kernel"], "bias": scale * output["bias"]}
        output["bias"] = output["bias"] + offset
        other = {"q": params["critic"]["q"] | {last: output}}
        found = agent.candidate_logits(other, *inputs)
        np.testing.assert_allclose(found, logits, atol=1e-3)
    spread = np.asarray(jnp.where(shares > 0, logits - jnp.log(shares), 0))
    np.testing.assert_allclose((shares * spread).sum(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose((shares * spread**2).sum(axis=1), 1, rtol=1e-4)


def test_an_action_is_that_of_a_drawn_candidate_and_mostly_of_a_good_one(small):
    agent, params, _ = small
    agent = replace(agent, choice_temperature=1e-3)
    n = 200
    keys = jax.random.split(jax.random.key(0), n)
    observations = np.tile(np.random.default_rng(0).normal(size=(1, 5)), (n, 1))
    context = agent.start(jnp.full(n, 3.0), keys)
    inputs = observations.astype(np.float32), np.zeros(n, np.float32), np.zeros(n, bool)
    context, actions = jax.jit(agent.act)(params, context, *inputs)
    q = apply(agent.critic, params["critic"], inputs[0], actions).min(axis=0)
    plain = replace(agent, num_candidates=1)
    _, usual = jax.jit(plain.act)(params, plain.start(jnp.full(n, 3.0), keys), *inputs)
    usual_q = apply(agent.critic, params["critic"], inputs[0], usual).min(axis=0)
    assert (q >= usual_q - 1e-6).all()
    assert q.mean() > usual_q.mean()
    # The next draw is another one, by the keys in the context.
    assert (jax.random.key_data(context.keys) != jax.random.key_data(keys)).any()
    np.testing.assert_array_equal(context.actions, actions)
