"""Whether an agent from outside the package keeps the contract of `base.Agent`."""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from dt_jax.agents.base import Agent
from dt_jax.data.sampler import KINDS
from dt_jax.types import Batch
from dt_jax.utils.errors import UserError, did_you_mean

_B, _N = 3, 2  # windows and episodes that are tried
_RESERVED = "step", "steps_per_second"  # columns of metrics.jsonl


def check_agent(name: str, agent: Agent) -> None:
    """Compare what an agent's attributes and methods return with the contract.

    JAX derives the shapes without computing anything. Wrong ones would often broadcast
    and give wrong numbers without an error.

    Args:
      name: the agent's, for error messages.
      agent: as `from_config` returns it.

    Raises:
      UserError: an attribute or a method is missing, or returns something else.
    """

    def refuse(what: str) -> NoReturn:
        raise UserError(f"agent {name}: {what}")

    def compare(what: str, found: Any, expected: Any) -> None:
        found, expected = _shapes(found), _shapes(expected)
        for path in {**expected, **found}:
            if found.get(path) != expected.get(path):
                refuse(
                    f"{what}{path} is {found.get(path, 'missing')}, expected "
                    f"{expected.get(path, 'nothing')}"
                )

    _check_members(agent, refuse)

    def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    steps, s, a = agent.context_len, agent.observation_size, agent.action_size
    sizes = {"states": (s,), "next_states": (s,), "actions": (a,)}
    fields: dict[str, Any] = {
        field: array(_B, steps, *sizes.get(field, ()))
        for field in {*agent.batch_fields, "mask"} - {"timesteps"}
    }
    if "timesteps" in agent.batch_fields:
        fields["timesteps"] = array(_B, steps, dtype=jnp.int32)
    batch = Batch(**fields)
    key = jax.eval_shape(lambda: jax.random.key(0))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), _N))

    state = jax.eval_shape(agent.init, key)
    result = jax.eval_shape(agent.update, state, batch)
    if not _is_pair(result) or not isinstance(result[1], dict):
        refuse("update has to return a TrainState and a dict of metrics")
    compare("the state after update", result[0], state)
    for metric, value in result[1].items():
        compare(f"the metric {metric}", value, array(dtype=value.dtype))
        if metric in _RESERVED or metric.startswith(("eval/", "seed_")):
            refuse(f"a metric has the name {metric}, which is reserved")
    params = jax.eval_shape(agent.acting_params, state)
    errors = jax.eval_shape(agent.validation_loss, params, batch)
    per_action = agent.validation_metric == "action_mse"
    size = a if per_action else errors.shape[-1]
    compare("validation_loss", errors, array(_B, steps, size))

    targets = array(_N) if agent.conditioned else None
    context = jax.eval_shape(agent.start, targets, keys)
    observed = array(_N, s), array(_N), array(_N, dtype=jnp.bool)
    result = jax.eval_shape(agent.act, params, context, *observed)
    if not _is_pair(result):
        refuse("act has to return the context and the actions")
    compare("the context after act", result[0], context)
    compare("the actions of act", result[1], array(_N, a))


def _check_members(agent: Agent, refuse: Callable[[str], NoReturn]) -> None:
    """Refuse an agent without a member, or with one of another kind."""
    if agent is None:
        refuse("the method from_config is missing, or returns nothing")
    for attribute in ("conditioned", "context_len", "episode_len", "normalizer"):
        if not hasattr(agent, attribute):
            refuse(f"the attribute {attribute} is missing")
    for method in ("init", "update", "validation_loss", "start", "act"):
        if getattr(type(agent), method) is getattr(Agent, method):
            refuse(f"the method {method} is missing")
    if not isinstance(agent.batch_fields, tuple):
        refuse(f"batch_fields is {agent.batch_fields!r}, expected a tuple of names")
    for field in agent.batch_fields:
        if field not in Batch._fields:
            hint = did_you_mean(str(field), Batch._fields)
            refuse(f"unknown batch field {field!r}{hint}")
    if agent.batch_kind not in KINDS:
        hint = did_you_mean(str(agent.batch_kind), KINDS)
        refuse(f"unknown batch_kind {agent.batch_kind!r}{hint}")
    if agent.conditioned and "target_returns" not in {key.name for key in agent.KEYS}:
        refuse("it is conditioned, but KEYS lacks target_returns")


def _is_pair(result: Any) -> bool:
    return isinstance(result, tuple) and len(result) == 2


def _shapes(tree: Any) -> dict[str, str]:
    """Return the type and shape of each array of a pytree, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves
    }
