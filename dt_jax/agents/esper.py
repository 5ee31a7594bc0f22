"""ESPER (Paster et al., 2022, https://arxiv.org/abs/2205.15967).

A Decision Transformer imitates what preceded a high return, be it skill or luck: where
the same action may end well or badly, asking for the good end does not bring it about.
Here every return-to-go is replaced by the mean return that follows, given only what the
agent decides. "clusters", the paper's, are a summary of the rest of the trajectory that
tells nothing about how the environment answers: the actions are predicted from it, and
the next states must not be. "expected" is the mean over everything that followed a
state and an action in the data, which is the same where episodes have one decision.

The reference implementation is keirp/return_transforms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from ml_collections import ConfigDict

from dt_jax.agents.base import Trained
from dt_jax.agents.cluster_return import ClusterReturn
from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.agents.expected_return import ExpectedReturn, ReturnModel
from dt_jax.data.labels import Labels, round_labels
from dt_jax.data.trajectories import Trajectories
from dt_jax.utils.keys import (
    NOT_NEGATIVE,
    POSITIVE_INTEGER,
    Key,
    one_of,
    or_none,
    text,
    united,
)

# fmt: off
_KEYS = (
    Key("labels", "clusters", one_of("clusters", "expected"),
        'What stands for the returns: "clusters" is ESPER, the mean return of a '
        'cluster, a state and an action; "expected" is that of a state and an action.'),
    Key("return_updates", 1_000, POSITIVE_INTEGER,
        "Updates that learn the returns."),
    Key("return_batch_size", 100, POSITIVE_INTEGER,
        "Samples in one update of the labels' networks: episodes for clusters, "
        "transitions for expected."),
    Key("label_rounding", None, or_none(NOT_NEGATIVE),
        "Labels of clusters are rounded to multiples of it, in units of reward; 0: "
        "they are not rounded. None: 0.1 / reward_scale, as in the reference."),
    Key("labels_from", None, or_none(text("the folder of a run")),
        "A run on the same data whose labels, or a run of the labels' networks, are "
        "used instead of training these networks."),
)
# fmt: on


@dataclass(frozen=True)
class EsperAgent(DecisionTransformerAgent):
    """A Decision Transformer trained on the labels of a `ReturnModel`."""

    KEYS: ClassVar[tuple[Key, ...]] = united(
        DecisionTransformerAgent.KEYS, _KEYS, ClusterReturn.KEYS, ExpectedReturn.KEYS
    )

    @classmethod
    def stages(cls, config: ConfigDict) -> Mapping[str, Mapping[str, Any]]:
        """Return the run that learns the returns."""
        agent, updates = "expected_return", config.return_updates
        if config.labels == "clusters":
            agent, updates = "cluster_return", updates + config.cluster_updates
        return {
            "returns": {
                "agent": agent,
                "update_steps": updates,
                "batch_size": config.return_batch_size,
            }
        }

    @classmethod
    def make_labels(
        cls,
        config: ConfigDict,
        stages: Mapping[str, Trained],
        trajectories: Trajectories,
    ) -> Labels:
        """Return each row's expected return."""
        agent, params = stages["returns"]
        scale = agent.normalizer.reward_scale
        labels = cast(ReturnModel, agent).labels(params, trajectories)
        labels /= np.float32(scale)
        if config.labels == "clusters":
            step = config.label_rounding
            labels = round_labels(labels, 0.1 / scale if step is None else step)
        return Labels(labels)
