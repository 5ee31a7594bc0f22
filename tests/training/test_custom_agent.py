"""An agent from outside the package, whose acting parameters are not those it trains.

Its updates also draw random numbers, and its metrics have names of their own.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_run, changed, restored, train_until

from dt_jax import agents
from dt_jax.agents.base import Agent, TrainState
from dt_jax.config import default_config
from dt_jax.config.keys import keys_of
from dt_jax.config.load import override
from dt_jax.data.normalizer import Normalizer
from dt_jax.evaluation.policy import load_agent
from dt_jax.runs.metrics import read_metrics
from dt_jax.training.dry_run import dry_run
from dt_jax.training.train import train
from dt_jax.utils.errors import UserError
from dt_jax.utils.keys import PROBABILITY, Key


@dataclass(frozen=True)
class AveragingAgent(Agent):
    """Linear behaviour cloning that acts with a moving average of its parameters."""

    KEYS: ClassVar = (
        Key("decay", 0.5, PROBABILITY, "Decay of the average of the parameters."),
    )
    batch_fields: ClassVar = ("states", "actions")
    conditioned: ClassVar = False

    normalizer: Normalizer
    episode_len: int
    decay: float
    context_len: int = 2

    @classmethod
    def from_config(cls, config, normalizer):
        return cls(normalizer, config.episode_len, config.decay)

    def init(self, key):
        shape = self.observation_size, self.action_size
        params = {"kernel": 0.1 * jax.random.normal(key, shape)}
        return TrainState(
            jnp.zeros((), jnp.int32), params, (), key, extra={"average": params}
        )

    def update(self, state, batch):
        key = jax.random.fold_in(state.key, state.step)
        states = batch.states + 0.1 * jax.random.normal(key, batch.states.shape)

        def loss(params):
            return jnp.mean(jnp.square(states @ params["kernel"] - batch.actions))

        error, grads = jax.value_and_grad(loss)(state.params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
        average = jax.tree.map(
            lambda a, p: self.decay * a + (1 - self.decay) * p,
            state.extra["average"],
            params,
        )
        state = state.replace(
            step=state.step + 1, params=params, extra={"average": average}
        )
        return state, {"imitation": error}

    def validation_loss(self, params, batch):
        errors = jnp.square(batch.states @ params["kernel"] - batch.actions)
        return errors * batch.mask[..., None]

    def acting_params(self, state):
        return state.extra["average"]

    def start(self, target_returns, keys):
        return ()

    def act(self, params, context, observations, rewards, done):
        states = self.normalizer.normalize_states(observations)
        return context, self.normalizer.to_environment(states @ params["kernel"])


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(agents, "_REGISTERED", {})
    agents.register("averaging", AveragingAgent)


@pytest.fixture
def config(small_config):
    """Return `small_config` for the agent, with held-out trajectories."""
    ours = default_config("averaging")
    shared = {name: small_config[name] for name in ours if name in small_config}
    return changed(ours, **shared | {"agent": "averaging", "holdout_fraction": 0.3})


def test_its_keys_replace_those_of_the_decision_transformer(config):
    assert config.decay == 0.5
    assert "embedding_dim" not in config
    with pytest.raises(
        UserError, match=r"decay=1.5: expected a number from 0 to below"
    ):
        override(config, "decay", "1.5")


@pytest.mark.parametrize("num_seeds", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_an_interrupted_run_resumes_to_the_same_bits(config, tmp_path, num_seeds):
    """Trained and acting parameters, the random key and metrics."""
    config = changed(config, num_seeds=num_seeds)
    train(config, tmp_path / "uninterrupted")
    train_until(7, config, tmp_path / "run")
    train(config, tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "uninterrupted")
    row = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert "imitation" in row
    assert "train_loss" not in row
    assert "eval/return_mean" in row  # without a target return in its name

    saved = restored(tmp_path / "run", "params")
    trained = restored(tmp_path / "run", "train")
    assert saved["['kernel']"] == trained["['extra']['average']['kernel']"]
    assert saved["['kernel']"] != trained["['params']['kernel']"]


def test_the_saved_policy_acts_with_the_average(config, tmp_path):
    run = train(changed(config, eval_episodes=0), tmp_path)
    _, _, saved = restored(tmp_path, "train")["['extra']['average']['kernel']"]
    average = np.frombuffer(saved, np.float32).reshape(11, 3)
    policy, observation = run.policy(), np.arange(11, dtype=np.float32)
    policy.reset()
    normalizer = load_agent(tmp_path, "last").agent.normalizer
    expected = normalizer.normalize_states(observation[None])[0] @ average
    np.testing.assert_allclose(policy.act(observation), expected, rtol=1e-5)


def test_a_dry_run_makes_an_update(config, tmp_path, capsys):
    dry_run(config, tmp_path / "run")
    out = capsys.readouterr().out
    assert "hopper-demo reset and stepped; one update on" in out
    assert "imitation" in out


def test_a_run_of_an_unregistered_agent_is_refused_by_name(
    config, tmp_path, monkeypatch
):
    train(changed(config, eval_episodes=0, update_steps=1), tmp_path)
    monkeypatch.setattr(agents, "_REGISTERED", {})
    for use in (lambda: load_agent(tmp_path, "last"), lambda: train(config, tmp_path)):
        with pytest.raises(UserError, match=r"unknown agent 'averaging'.*--agents="):
            use()


def test_a_built_in_agent_cannot_be_replaced():
    with pytest.raises(UserError, match="'dt' is built in: register yours under"):
        agents.register("dt", AveragingAgent)


def test_every_agent_has_the_shared_keys(config):
    assert keys_of("averaging").keys() - {"decay"} < keys_of("dt").keys()
