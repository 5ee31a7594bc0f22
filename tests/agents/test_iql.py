"""Implicit Q-learning: its update against a plain transcription."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_agent import normalizer

from dt_jax.agents.contract import check_agent
from dt_jax.agents.iql import ImplicitQLearning
from dt_jax.config import default_config
from dt_jax.types import Batch

S, A, B = 3, 2, 8
SMALL = {
    "critic_dim": 8,
    "critic_layers": 1,
    "update_steps": 10,
    "max_action": 1.5,
    "iql_tau": 0.8,
}
FAST = {"vf_lr": 3e-3, "qf_lr": 2e-3, "actor_lr": 1e-3, "tau": 0.1}


def make_agent(units=None, **changes):
    config = default_config("iql", **changes)
    return ImplicitQLearning.from_config(config, units or normalizer(S, A, 0.5))


def make_batch(seed=0):
    """Return steps in the middle, at terminations and at time limits."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(B) % 3  # 0: in the middle, 1: termination, 2: time limit
    return Batch(
        states=rng.normal(size=(B, 1, S)),
        actions=rng.uniform(-1, 1, (B, 1, A)),
        rewards=rng.normal(size=(B, 1)),
        terminals=(kinds == 1).astype(float)[:, None],
        next_states=rng.normal(size=(B, 1, S)) * (kinds == 0)[:, None, None],
        has_next=(kinds == 0).astype(float)[:, None],
        mask=np.ones((B, 1)),
    )


# One update.


def mlp(p, x):
    """An MLP as torch computes it."""
    *hidden, last = p.values()
    for layer in hidden:
        x = x @ layer["kernel"] + layer["bias"][None]
        x = x * (x > 0)
    return x @ last["kernel"] + last["bias"][None]


def twin_q(params, sa):
    return [
        mlp(jax.tree.map(lambda p, i=i: p[i], params["q"]), sa)[:, 0] for i in (0, 1)
    ]


class NaiveIQL:
    """CORL's ImplicitQLearning in NumPy: one loss and one Adam after the other.

    It gets only the transitions that D4RL's qlearning_dataset has. JAX computes the
    gradients.
    """

    def __init__(self, agent, config, params):
        self.params, self.target = params, params["critic"]
        self.config, self.scale = config, agent.normalizer.reward_scale
        self.first = self.second = jax.tree.map(np.zeros_like, params)
        self.updates = 0
        losses = self.v_loss, self.q_loss, self.actor_loss
        self.v_grad, self.q_grad, self.actor_grad = (
            jax.jit(jax.grad(loss)) for loss in losses
        )

    def v_loss(self, params, s, target_q):
        u = target_q - mlp(params["mlp"], s)[:, 0]
        return jnp.mean(jnp.abs(self.config.iql_tau - (u < 0)) * u**2)

    def q_loss(self, params, sa, y):
        return sum(jnp.mean((q - y) ** 2) for q in twin_q(params, sa)) / 2

    def actor_loss(self, params, s, a, weights):
        mean = params if self.config.iql_deterministic else params["mean"]
        mean = self.config.max_action * jnp.tanh(mlp(mean["mlp"], s))
        if self.config.iql_deterministic:
            return jnp.mean(weights * jnp.sum((mean - a) ** 2, axis=1))
        std = jnp.exp(jnp.clip(params["log_std"], -20, 2)[None])
        log_prob = jax.scipy.stats.norm.logpdf(a, mean, std).sum(axis=1)
        return -jnp.mean(weights * log_prob)

    def adam(self, name, grads, rate):
        t = self.updates + 1

        def step(p, m, v):
            return p - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)

        grads = jax.device_get(grads)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, self.first[name], grads)
        v = jax.tree.map(
            lambda v, g: 0.999 * v + 0.001 * g**2, self.second[name], grads
        )
        self.first, self.second = self.first | {name: m}, self.second | {name: v}
        new = jax.tree.map(step, self.params[name], m, v)
        self.params = self.params | {name: new}

    def update(self, batch):
        c, value = self.config, self.params["value"]
        kept = (batch.has_next + batch.terminals)[:, 0] > 0
        s, a, r, done, s2 = (
            getattr(batch, name)[kept, 0]
            for name in ("states", "actions", "rewards", "terminals", "next_states")
        )
        sa = np.concatenate([s, a], axis=1)
        next_v = mlp(value["mlp"], s2)[:, 0]
        target_q = np.minimum(*twin_q(self.target, sa))
        adv = target_q - mlp(value["mlp"], s)[:, 0]
        self.adam("value", self.v_grad(value, s, target_q), c.vf_lr)
        y = r + (1 - done) * c.discount * next_v
        self.adam("critic", self.q_grad(self.params["critic"], sa, y), c.qf_lr)
        self.target = jax.tree.map(
            lambda old, new: (1 - c.tau) * old + c.tau * new,
            self.target,
            self.params["critic"],
        )
        weights = np.minimum(np.exp(c.beta * adv / self.scale), 100.0)
        grads = self.actor_grad(self.params["actor"], s, a, weights)
        progress = self.updates / c.update_steps
        self.adam("actor", grads, c.actor_lr * 0.5 * (1 + np.cos(np.pi * progress)))
        self.updates += 1


@pytest.mark.parametrize(
    "deterministic", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_updates_equal_those_of_a_plain_transcription(deterministic):
    """In float64, over two updates, with each kind of transition in the batch."""
    kind = {"iql_deterministic": deterministic, "critic_layers": 2 - deterministic}
    config = default_config("iql", **SMALL | FAST | kind)
    agent = ImplicitQLearning.from_config(config, normalizer(S, A, 0.5))
    batches = [make_batch(seed) for seed in range(2)]

    def initial():
        state = agent.init(jax.random.key(0))
        params = jax.tree.map(lambda x: x.astype(jnp.float64), state.params)
        if not deterministic:
            params["actor"]["log_std"] = jnp.array([-0.3, 0.4])
        state = state.replace(params=params, opt_state=agent.optimizer.init(params))
        return state.replace(extra={"target": params["critic"]})

    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        state, update = jax.jit(initial)(), jax.jit(agent.update)
        before = jax.device_get(state.params)
        naive = NaiveIQL(agent, config, before)
        for batch in batches:
            state, _ = update(state, batch)
            naive.update(batch)
        ours = jax.device_get((state.params, state.extra["target"]))

    def compare(x, y):
        assert x.dtype == np.float64
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-9)

    jax.tree.map(compare, ours, (naive.params, naive.target))
    moved = jax.tree.map(lambda x, y: abs(x - y).max(), ours[0], before)
    assert min(map(float, jax.tree.leaves(moved))) > 1e-3


@pytest.fixture(scope="module")
def updated():
    """Return a function from a batch to the parameters after an update, and metrics.

    `shift` is added to the target's Q. Units of reward are twice those of Q.
    """
    agent = make_agent(**SMALL)
    state = jax.jit(agent.init)(jax.random.key(0))

    @jax.jit
    def update(batch, shift):
        last = state.extra["target"]["q"]["Linear_1"]
        last = last | {"bias": last["bias"] + shift}
        target = {"q": state.extra["target"]["q"] | {"Linear_1": last}}
        after, metrics = agent.update(state.replace(extra={"target": target}), batch)
        return after.params, metrics

    def run(batch, shift=0.0):
        batch = jax.tree.map(lambda x: x.astype(np.float32), batch)
        params, metrics = update(batch, np.float32(shift))
        return jax.tree.leaves(params), {k: float(x) for k, x in metrics.items()}

    return run


@pytest.mark.parametrize("kind", ["in the middle", "termination", "time limit"])
def test_a_step_without_a_valid_target_counts_in_no_loss(updated, kind):
    """The last one of a trajectory that a time limit ended."""
    batch = make_batch()
    rows = {
        "in the middle": batch.has_next,
        "termination": batch.terminals,
        "time limit": 1 - batch.has_next - batch.terminals,
    }[kind]
    changed = batch._replace(
        states=batch.states + rows[..., None],
        actions=batch.actions * (1 - rows[..., None]),
        rewards=batch.rewards + 5 * rows,
    )
    before, after = updated(batch)[0], updated(changed)[0]
    same = all((x == y).all() for x, y in zip(before, after, strict=True))
    assert same == (kind == "time limit")


def test_a_batch_of_such_steps_has_losses_of_zero(updated):
    none = np.zeros((B, 1))
    _, metrics = updated(make_batch()._replace(has_next=none, terminals=none))
    assert metrics == dict.fromkeys(metrics, 0)


def test_the_value_after_a_termination_is_zero(updated):
    """Whatever next_states holds there."""
    batch = make_batch()
    elsewhere = batch.next_states + batch.terminals[..., None]
    _, metrics = updated(batch._replace(next_states=elsewhere))
    assert metrics == updated(batch)[1]


def test_weights_are_exponential_in_the_advantage_and_at_most_100(updated):
    batch = jax.tree.map(np.copy, make_batch())
    for field in jax.tree.leaves(batch):  # one step, B times
        field[:] = field[1]
    for shift in (-0.1, 0.0, 0.1):
        _, found = updated(batch, shift)
        advantage = found["q_mean"] - found["v_mean"]  # in units of reward
        assert found["advantage_mean"] == pytest.approx(advantage, abs=1e-5)
        assert found["weight_mean"] == pytest.approx(np.exp(3 * advantage), rel=1e-4)
    assert updated(batch, 10.0)[1]["weight_mean"] == 100
    assert updated(batch, 10.0)[1]["advantage_mean"] == pytest.approx(20, abs=3)
    assert updated(batch, -50.0)[1]["weight_mean"] < 1e-30


# The agent.


def test_a_warm_start_takes_over_the_target():
    agent = make_agent(**SMALL)
    state = jax.eval_shape(agent.init, jax.random.key(0))
    params = jax.tree.map(lambda x: np.ones(x.shape), state.params)
    started = agent.warm_start(state, params)
    assert started.params is params
    assert started.extra == {"target": params["critic"]}


def test_it_keeps_the_contract():
    for deterministic in (False, True):
        check_agent("iql", make_agent(iql_deterministic=deterministic))
