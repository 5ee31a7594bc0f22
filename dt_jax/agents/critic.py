"""What agents with a critic share: a method, configuration keys, and their batches."""

from typing import Protocol

from dt_jax.agents.base import Agent
from dt_jax.types import Array, Params
from dt_jax.utils.keys import POSITIVE, POSITIVE_INTEGER, Key, integer, number, or_none

# The fields of a batch of transitions, for one-step targets.
TRANSITION = (
    "states",
    "actions",
    "rewards",
    "terminals",
    "next_states",
    "has_next",
    "mask",
)

# fmt: off
CRITIC_KEYS = (
    Key("critic_dim", 256, POSITIVE_INTEGER,
        "Width of the hidden layers of Q, V and the policy.", architecture=True),
    Key("critic_layers", 2, integer(0, 100),
        "Hidden layers of Q, V and the policy.", architecture=True),
    Key("discount", 0.99, number("a number from 0 to 1", lambda x: 0 <= x <= 1),
        "Factor of the value of the next state."),
    Key("tau", 0.005, number("a number above 0 and at most 1", lambda x: 0 < x <= 1),
        "Share of Q that the target network takes over in each update."),
    Key("qf_lr", 3e-4, POSITIVE, "Adam's learning rate for Q."),
    Key("actor_lr", 3e-4, POSITIVE,
        "Adam's learning rate for the policy; in iql a cosine decays it to 0 by "
        "update_steps."),
    Key("reward_scale", None, or_none(POSITIVE),
        "Factor from rewards to those that Q and V learn; None: the power of ten that "
        "brings the data's largest return to between 1 and 10.", from_data=True),
)
# fmt: on


class Critic(Agent, Protocol):
    """An agent that knows what states are worth, of which labels can be made."""

    def values(self, params: Params, observations: Array) -> Array:
        """Return V of raw observations [N, S] in units of reward, [N]."""
