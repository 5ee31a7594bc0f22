"""What is refused of an agent from outside the package, before anything is computed."""

from types import SimpleNamespace
from typing import ClassVar

import jax.numpy as jnp
import pytest
from small_agent import normalizer

from dt_jax import agents
from dt_jax.agents.base import Agent, TrainState
from dt_jax.agents.contract import check_agent
from dt_jax.config.keys import keys_of
from dt_jax.utils.errors import UserError
from dt_jax.utils.keys import POSITIVE_INTEGER, Key


class Linear(Agent):
    """Linear behaviour cloning that keeps the contract."""

    KEYS: ClassVar = ()
    batch_fields: ClassVar = ("states", "actions", "returns_to_go", "timesteps")
    conditioned: ClassVar = False
    context_len, episode_len = 4, 10

    def __init__(self):
        self.normalizer = normalizer(3, 2)

    def init(self, key):
        params = {"kernel": jnp.zeros((3, 2))}
        return TrainState(jnp.zeros((), jnp.int32), params, (), key)

    def update(self, state, batch):
        loss = self.validation_loss(state.params, batch).mean()
        return state.replace(step=state.step + 1), {"loss": loss}

    def validation_loss(self, params, batch):
        errors = jnp.square(batch.states @ params["kernel"] - batch.actions)
        return errors * batch.mask[..., None]

    def start(self, target_returns, keys):
        return keys

    def act(self, params, context, observations, rewards, done):
        return context, observations @ params["kernel"]


def loss_of(shape):
    return lambda self, params, batch: jnp.zeros(shape)


def acts(context, actions):
    return lambda self, *arguments: (context(arguments[1]), jnp.zeros(actions))


def metrics(names):
    return lambda self, state, batch: (state, names)


def returns_another_state(self, state, batch):
    return state.replace(step=state.step.astype(jnp.float32)), {}


def test_an_agent_that_keeps_the_contract_is_accepted():
    check_agent("mine", Linear())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditioned": True}, "conditioned, but KEYS lacks target_returns"),
        ({"batch_fields": ("return_to_go",)}, "'return_to_go'; nearest: returns_to_go"),
        ({"batch_fields": "states"}, "expected a tuple of names"),
        ({"batch_kind": "window"}, "unknown batch_kind 'window'; nearest: windows"),
        ({"start": Agent.start}, "the method start is missing"),
        ({"update": lambda self, state, batch: state}, "a TrainState and a dict"),
        ({"update": metrics({"step": jnp.zeros(())})}, "step, which is reserved"),
        ({"update": metrics({"eval/x": jnp.zeros(())})}, "eval/x, which is reserved"),
        ({"update": metrics({"loss": jnp.zeros(4)})}, r"metric loss is float32\[4\]"),
        ({"update": returns_another_state}, r"state after update.*step is .*expected"),
        ({"validation_loss": loss_of((3, 4, 1))}, r"\[3, 4, 1\].*\[3, 4, 2\]"),
        ({"validation_loss": loss_of((3, 4))}, r"\[3, 4\].*\[3, 4, 2\]"),
        ({"act": acts(lambda x: x, (2,))}, r"actions of act is float32\[2\].*\[2, 2\]"),
        ({"act": acts(lambda x: x, (2, 1))}, r"\[2, 1\], expected float32\[2, 2\]"),
        ({"act": acts(lambda x: x[:1], (2, 2))}, "the context after act"),
        ({"act": lambda self, *_: jnp.zeros((2, 2))}, "the context and the actions"),
    ],
)
def test_a_breach_is_named_in_one_line(monkeypatch, changes, message):
    for name, value in changes.items():
        monkeypatch.setattr(Linear, name, value)
    with pytest.raises(UserError, match=message) as error:
        check_agent("mine", Linear())
    assert str(error.value).startswith("agent mine: ")
    assert "\n" not in str(error.value)


def test_registered_agents_are_checked_when_they_are_made(monkeypatch):
    monkeypatch.setattr(agents, "_REGISTERED", {})
    monkeypatch.setattr(Linear, "from_config", lambda *_: Linear(), raising=False)
    agents.register("mine", Linear)
    config = SimpleNamespace(agent="mine")
    assert isinstance(agents.make_agent(config, None), Linear)
    monkeypatch.setattr(Linear, "act", acts(lambda x: x, (2,)))
    with pytest.raises(UserError, match="agent mine: the actions of act"):
        agents.make_agent(config, None)


def test_a_key_that_exists_already_is_refused(monkeypatch):
    monkeypatch.setattr(agents, "_REGISTERED", {})
    agents.register("mine", Linear)
    keys = (Key("batch_size", 7, POSITIVE_INTEGER, "Mine."),)
    monkeypatch.setattr(Linear, "KEYS", keys)
    with pytest.raises(UserError, match="the key batch_size exists already"):
        keys_of("mine")
