"""Q-learning Decision Transformer (Yamagata et al., 2023, arXiv 2209.03993).

A Decision Transformer imitates what followed a return-to-go, so it cannot join the good
halves of two mediocre trajectories. Here a critic, trained first, knows what each state
is worth under the best actions in the data, and every return-to-go is replaced by what
was reachable: R_t = r_t + max(R_{t+1}, V(s_{t+1})), from a trajectory's end backwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import jax
import numpy as np
from ml_collections import ConfigDict

from dt_jax.agents.base import Trained
from dt_jax.agents.cql import ConservativeQLearning
from dt_jax.agents.critic import STAGE_KEYS, Critic
from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.agents.iql import ImplicitQLearning
from dt_jax.data.labels import Labels, relabel, round_labels
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.trajectories import Trajectories
from dt_jax.utils.keys import NOT_NEGATIVE, Key, one_of, or_none, text, united

_BLOCK_ROWS = 1 << 16  # whose values are computed together

# fmt: off
_KEYS = (
    Key("critic", "iql", one_of("iql", "cql"),
        "The agent whose values relabel the data; cql is the paper's."),
    *STAGE_KEYS,
    Key("label_mode", "per_step", one_of("per_step", "window"),
        '"per_step": each position of a window shows its own label. "window", as in '
        'the paper: the last one does, and true rewards lead from the earlier ones to '
        'it; windows are drawn by their end.'),
    Key("label_rounding", 0.0, NOT_NEGATIVE,
        "Labels are rounded to multiples of it, in units of reward, which removes "
        "errors of the critic where returns are such multiples; 0: they are not "
        "rounded."),
    Key("labels_from", None, or_none(text("the folder of a run")),
        "A run on the same data whose labels, or a run of the critic whose values, are "
        "used instead of training a critic."),
)
# fmt: on


@dataclass(frozen=True)
class QLearningDecisionTransformerAgent(DecisionTransformerAgent):
    """A Decision Transformer trained on labels that a critic has made."""

    KEYS: ClassVar[tuple[Key, ...]] = united(
        DecisionTransformerAgent.KEYS,
        _KEYS,
        ImplicitQLearning.KEYS,
        ConservativeQLearning.KEYS,
    )

    batch_kind: str = "windows"

    @classmethod
    def from_config(cls, config: ConfigDict, normalizer: Normalizer) -> Self:
        """Return the agent of a configuration and a dataset's units."""
        agent = super().from_config(config, normalizer)
        kind = "window_ends" if config.label_mode == "window" else "windows"
        return replace(agent, batch_kind=kind)

    @classmethod
    def stages(cls, config: ConfigDict) -> Mapping[str, Mapping[str, Any]]:
        """Return the critic's run.

        The terms of the loss of cql weigh against each other in the data's rewards.
        """
        scale = 1.0 if config.critic == "cql" else config.reward_scale
        return {
            "critic": {
                "agent": config.critic,
                "update_steps": config.critic_update_steps,
                "batch_size": config.critic_batch_size,
                "reward_scale": scale,
            }
        }

    @classmethod
    def make_labels(
        cls,
        config: ConfigDict,
        stages: Mapping[str, Trained],
        trajectories: Trajectories,
    ) -> Labels:
        """Return each row's best reachable return, by the critic's values."""
        agent, params = stages["critic"]
        values_of = jax.jit(cast(Critic, agent).values)
        observations = trajectories.observations
        values = [
            values_of(params, observations[i : i + _BLOCK_ROWS].astype(np.float32))
            for i in range(0, len(observations), _BLOCK_ROWS)
        ]
        labels = relabel(
            trajectories.rewards,
            np.concatenate(values),
            trajectories.starts,
            trajectories.lengths,
        )
        labels = round_labels(labels, config.label_rounding)
        if config.label_mode == "per_step":
            return Labels(labels)
        returns = trajectories.returns_to_go
        return Labels(returns, labels - returns)
