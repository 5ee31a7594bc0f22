"""Agents by name. An agent is one file: its keys, loss, update and way of acting."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dt_jax.utils.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from dt_jax.agents.base import Agent

_BUILT_IN = {  # name -> module and class, imported on first use
    "dt": ("dt_jax.agents.dt", "DecisionTransformerAgent"),
    "bc": ("dt_jax.agents.bc", "BehaviourCloning"),
    "iql": ("dt_jax.agents.iql", "ImplicitQLearning"),
    "cql": ("dt_jax.agents.cql", "ConservativeQLearning"),
    "qdt": ("dt_jax.agents.qdt", "QLearningDecisionTransformerAgent"),
    "esper": ("dt_jax.agents.esper", "EsperAgent"),
    "cluster_return": ("dt_jax.agents.cluster_return", "ClusterReturn"),
    "expected_return": ("dt_jax.agents.expected_return", "ExpectedReturn"),
    "qt": ("dt_jax.agents.qt", "QRegularizedTransformerAgent"),
}
_REGISTERED: dict[str, type["Agent"]] = {}


def register(name: str, agent: type["Agent"]) -> None:
    """Make an agent from outside the package available as `config.agent = name`.

    Args:
      name: a new name; registering it again replaces the class.
      agent: implements `dt_jax.agents.base.Agent`.

    Raises:
      UserError: a built-in agent has that name.
    """
    if name in _BUILT_IN:
        raise UserError(
            f"agent {name!r} is built in: register yours under another name"
        )
    _REGISTERED[name] = agent


def agent_names() -> list[str]:
    """Return the names of all agents, built in and registered."""
    return [*_BUILT_IN, *_REGISTERED]


def agent_class(name: str) -> Any:
    """Return the class of the agent called `name`.

    Raises:
      UserError: there is none of that name.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in _BUILT_IN:
        hint = did_you_mean(name, agent_names())
        raise UserError(
            f"unknown agent {name!r}{hint}. Import the module that registers it "
            "first, or name its file with --agents=FILE.py"
        )
    module, attribute = _BUILT_IN[name]
    return getattr(import_module(module), attribute)


def make_agent(config: Any, normalizer: Any) -> "Agent":
    """Return the agent of a configuration.

    Args:
      config: validated and without None where the data decides.
      normalizer: the dataset's `dt_jax.data.normalizer.Normalizer`.

    Raises:
      UserError: a registered agent breaks the contract.
    """
    agent = agent_class(config.agent).from_config(config, normalizer)
    if config.agent in _REGISTERED:
        # Imported here because JAX takes seconds to import.
        from dt_jax.agents.contract import check_agent

        check_agent(config.agent, agent)
    return agent
