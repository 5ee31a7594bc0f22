"""Discrete actions from data to `Policy`, for every agent that supports them."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.wrappers import FlattenObservation
from helpers import TINY_TRANSFORMER, changed
from small_agent import large_params, normalizer, small_agent

import dt_jax
from dt_jax import envs
from dt_jax.agents.discrete import choose
from dt_jax.agents.losses import expected_value
from dt_jax.cli import export
from dt_jax.config import default_config
from dt_jax.evaluation.policy import Policy
from dt_jax.training.train import train
from dt_jax.types import Batch
from dt_jax.utils.errors import UserError

SMALL = {
    "batch_size": 32,
    "update_steps": 4,
    "eval_every": 4,
    "log_every": 2,
    "checkpoint_every": 2,
    "eval_episodes": 2,
    "num_workers": 0,
    "episode_len": None,
    "max_action": None,
    "holdout_fraction": 0.3,
}
TRANSFORMER = TINY_TRANSFORMER | {
    "seq_len": 3,
    "warmup_steps": 1,
    "reward_scale": None,
    "target_returns": None,
}
AGENTS = {
    "dt": TRANSFORMER,
    "bc": {"hidden_dim": 8},
    "iql": {"critic_dim": 8},
    "qt": TRANSFORMER | {"critic_dim": 8, "sample_actions": True},
}


def collect(env_id, path, episodes=12, **options):
    """Play random episodes and write them with integer actions."""
    env = gymnasium.make(env_id, **options)
    env.action_space.seed(0)
    rows = []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        done = False
        while not done:
            action = env.action_space.sample()
            after, reward, terminated, truncated, _ = env.step(action)
            rows.append((observation, action, reward, terminated, truncated))
            observation, done = after, terminated or truncated
    names = "observations", "actions", "rewards", "terminals", "timeouts"
    columns = map(np.array, zip(*rows, strict=True))
    np.savez(path, **dict(zip(names, columns, strict=True)))
    return str(path)


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    return collect("CartPole-v1", tmp_path_factory.mktemp("data") / "cartpole.npz")


def config_of(agent, data, env_name="CartPole-v1", **changes):
    config = default_config(agent)
    keys = SMALL | AGENTS[agent] | {"data_path": data, "env_name": env_name}
    return changed(config, **keys | changes)


@pytest.mark.parametrize(
    "agent",
    ["dt"] + [pytest.param(x, marks=pytest.mark.slow) for x in ("bc", "iql", "qt")],
)
def test_an_agent_is_trained_evaluated_and_acts_by_integers(agent, cartpole, tmp_path):
    config = config_of(agent, cartpole)
    run = train(config, tmp_path / "run")
    row = run.metrics()[-1]
    # Random actions carry a nat of log 2; none of the agents is sure of them.
    assert 0.3 < row["eval/holdout_action_nll"] < 1.2
    assert "eval/holdout_action_nll_relative" not in row
    policy, env = run.policy(), gymnasium.make("CartPole-v1")
    policy.reset(500.0 if policy.agent.conditioned else None)
    observation, _ = env.reset(seed=0)
    action = policy.act(observation)
    assert env.action_space.contains(action)
    env.step(action)
    policy.reset([9.0, 500.0] if policy.agent.conditioned else None, num_episodes=2)
    actions = policy.act(np.stack([observation, observation]))
    assert actions.shape == (2,)
    assert actions.dtype == np.int64


@pytest.mark.parametrize("env_name", ["MountainCar-v0", "gymnasium:MountainCar-v0"])
def test_both_engines_take_one_hot_actions_and_choices(env_name):
    spec = envs.lookup(env_name)
    env = envs.make(spec, [0, 0, 0])
    env.host_reset()
    velocities = env.host_step(np.eye(3)).observations[:, 1]
    assert velocities[0] < velocities[1] < velocities[2]  # left, nothing, right
    env.host_reset()
    again = env.host_step(np.array([0, 1, 2])).observations[:, 1]
    np.testing.assert_array_equal(again, velocities)
    env.close()


@pytest.mark.slow
def test_one_hot_observations_of_a_wrapper_are_played(tmp_path):
    def frozen_lake(**options):
        return FlattenObservation(gymnasium.make("FrozenLake-v1", **options))

    gymnasium.register("FlatLake-v0", frozen_lake, max_episode_steps=20)
    try:
        data = collect("FlatLake-v0", tmp_path / "lake.npz", 20, is_slippery=False)
        config = config_of("dt", data, "FlatLake-v0", target_returns=(0.0,))
        train(config, tmp_path / "run")
        assert dt_jax.evaluate(tmp_path / "run", episodes=2).returns.shape == (1, 2)
    finally:
        del gymnasium.registry["FlatLake-v0"]


def test_the_action_that_the_observation_names_is_learned(tmp_path):
    rng = np.random.default_rng(0)
    choices = rng.integers(3, size=600)
    ends = np.arange(600) % 6 == 5
    path = tmp_path / "named.npz"
    np.savez(
        path,
        observations=np.eye(3)[choices],
        actions=choices,
        rewards=np.ones(600),
        terminals=ends,
        timeouts=ends & False,
    )
    config = config_of("bc", str(path), None, update_steps=100, warmup_steps=1)
    config = changed(config, learning_rate=1e-2, eval_every=100, log_every=100)
    run = train(config, tmp_path / "run")
    assert run.metrics()[-1]["eval/holdout_action_nll"] < 0.05
    policy = run.policy()
    policy.reset(num_episodes=3)
    np.testing.assert_array_equal(policy.act(np.eye(3)), [0, 1, 2])


def discrete_agent(**changes):
    units = normalizer(3, 2, discrete=True)
    agent = small_agent(units, discrete=True)
    return agent.__class__(**vars(agent) | changes)


def test_the_loss_is_the_cross_entropy_of_steps_that_are_not_padding():
    agent, rng = discrete_agent(), np.random.default_rng(0)
    params = large_params(agent)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.float32)
    batch = Batch(
        states=rng.normal(size=(2, 4, 3)).astype(np.float32),
        actions=np.eye(2, dtype=np.float32)[rng.integers(2, size=(2, 4))],
        returns_to_go=rng.normal(size=(2, 4)).astype(np.float32),
        timesteps=np.broadcast_to(np.arange(4, dtype=np.int32), (2, 4)),
        mask=mask,
    )
    logits = agent.model.apply({"params": params}, *batch[:4])
    expected = []
    for b, t in zip(*mask.nonzero(), strict=True):
        p = np.exp(np.float64(logits[b, t]))
        expected.append(-np.log(p[batch.actions[b, t].argmax()] / p.sum()))
    loss = agent.loss(params, batch, jax.random.key(0))
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)
    errors = agent.validation_loss(params, batch)
    assert errors.shape == (2, 4, 1)
    assert float(errors.sum()) == pytest.approx(np.sum(expected), rel=1e-5)


def test_the_likeliest_action_is_taken_or_actions_are_drawn_by_their_probabilities():
    n, probabilities = 20_000, np.array([0.1, 0.2, 0.7])
    logits = jnp.broadcast_to(jnp.log(probabilities), (n, 3))
    np.testing.assert_array_equal(choose(logits), np.tile([0, 0, 1], (n, 1)))
    drawn = np.asarray(choose(logits, jax.random.split(jax.random.key(0), n)))
    assert (drawn.sum(axis=1) == 1).all()
    np.testing.assert_allclose(drawn.mean(axis=0), probabilities, atol=0.015)


def test_drawn_actions_differ_between_episodes_and_steps_and_follow_the_seed():
    agent = discrete_agent(sample_actions=True)
    params = jax.tree.map(lambda x: 0 * x, large_params(agent))  # both are as likely
    policy = Policy(agent, params)
    observations = np.zeros((16, 3))

    def play(seed):
        policy.reset([1.0] * 16, seed=seed)
        steps = [policy.act(observations)]
        steps += [policy.act(observations, np.zeros(16)) for _ in range(5)]
        return np.array(steps)

    first = play(0)
    assert len({tuple(row) for row in first}) == 6
    assert len({tuple(column) for column in first.T}) > 8
    np.testing.assert_array_equal(play(0), first)
    assert (play(1) != first).any()


@pytest.mark.parametrize(
    ("agent", "changes", "message"),
    [
        ("cql", {"reward_scale": None}, "cql is for continuous actions, .*choose iql"),
        (
            "qdt",
            {"critic": "cql", "target_returns": None},
            "^stage critic: the agent cql is .*: --config.critic=iql",
        ),
        ("dt", {"env_name": "Pendulum-v1"}, "discrete actions, but those of Pendulum"),
    ],
)
def test_what_does_not_fit_discrete_actions_is_refused(
    agent, changes, message, cartpole, tmp_path
):
    keys = {"data_path": cartpole, "env_name": "CartPole-v1", "episode_len": None}
    config = changed(default_config(agent), **SMALL | keys | changes)
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run")


def test_the_value_of_a_policy_is_the_mean_over_its_choices():
    rng = np.random.default_rng(0)
    states, logits = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    weights = rng.normal(size=(2, 3, 2))

    def q(states, actions):
        return np.einsum("...s,ksa,...a->k...", states, weights, actions)

    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    choices = np.eye(2)
    each = [q(states, np.tile(choice, (4, 1))) for choice in choices]
    expected = p[:, 0] * each[0] + p[:, 1] * each[1]
    found = expected_value(q, np.float32(states), np.float32(logits))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_discrete_actions_are_only_exported_as_safetensors(cartpole, tmp_path):
    train(config_of("dt", cartpole, None, eval_every=2), tmp_path / "run")
    for kind in "hf", "corl":
        with pytest.raises(UserError, match=f"network of --to={kind} lacks: choose"):
            export.main(
                [str(tmp_path / "run"), f"--to={kind}", f"--out={tmp_path / kind}"]
            )
        assert not (tmp_path / kind).exists()


def test_continuous_actions_are_not_drawn(small_config, tmp_path):
    config = changed(small_config, sample_actions=True)
    with pytest.raises(UserError, match="only discrete actions are drawn"):
        train(config, tmp_path / "run")


def test_a_warm_start_from_continuous_actions_is_refused(cartpole, tmp_path):
    with np.load(cartpole) as file:
        arrays = dict(file)
    arrays["actions"] = np.eye(2, dtype=np.float32)[arrays["actions"]]
    np.savez(tmp_path / "floats.npz", **arrays)
    shared = {"episode_len": 200, "reward_scale": 0.01, "eval_episodes": 0}
    config = config_of("dt", str(tmp_path / "floats.npz"), None, **shared)
    train(config, tmp_path / "source")
    config = config_of("dt", cartpole, init_from=str(tmp_path / "source"), **shared)
    with pytest.raises(UserError, match="trained on continuous actions, but those of"):
        train(config, tmp_path / "run")
    with pytest.raises(UserError, match="continuous actions, but those of CartPole"):
        dt_jax.evaluate(
            tmp_path / "source",
            env_name="CartPole-v1",
            target_returns=(9.0,),
            episodes=1,
        )
