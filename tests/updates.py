"""A small dataset and agent, and updates on them without a run's folder."""

import jax
import numpy as np
from small_agent import normalizer, small_agent

from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.data.arrays import aligned_empty
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.sampler import Sampler
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories

B, T, S, A = 64, 7, 5, 2
LENGTHS = [1, 30, 4, T, T + 1, 60, 3]  # every second one ends by termination


def make_sampler(
    fields=DecisionTransformerAgent.batch_fields, *, labels=None, seed=1, kind="windows"
):
    """Return a sampler of random trajectories with units that matter."""
    rng, rows = np.random.default_rng(0), sum(LENGTHS)
    ends = np.cumsum(LENGTHS) - 1

    def drawn(*shape):
        array = aligned_empty(shape, np.float32)
        array[:] = rng.normal(3, 10, shape)
        return array

    raw = RawData(
        observations=drawn(rows, S),
        actions=drawn(rows, A),
        rewards=drawn(rows),
        terminals=np.isin(np.arange(rows), ends[::2]),
        timeouts=np.isin(np.arange(rows), ends[1::2]),
    )
    units = Normalizer(
        state_mean=rng.normal(size=S).astype(np.float32),
        state_std=rng.uniform(0.5, 3, S).astype(np.float32),
        action_center=rng.normal(size=A).astype(np.float32),
        action_scale=rng.uniform(0.5, 3, A).astype(np.float32),
        reward_scale=0.013,
    )
    return Sampler(
        Trajectories.from_raw(raw, source="random"),
        units,
        batch_size=B,
        context_len=T,
        seed=seed,
        fields=fields,
        kind=kind,
        labels=labels,
    )


def make_agent():
    """Return an agent for windows of that sampler, with one dropout."""
    return small_agent(
        normalizer(S, A),
        seq_len=T,
        episode_len=max(LENGTHS),
        num_heads=2,
        embedding_dropout=0.1,
    )


def run_updates(multi_step, state, calls):
    """Make updates in calls of several steps; return the state's leaves and losses."""
    losses = []
    for steps in calls:
        state, metrics = multi_step(state, multi_step.inputs(steps), len(steps))
        losses += metrics["train_loss"][: len(steps)].tolist()
    return jax.tree.leaves((state.params, state.opt_state, state.step)), losses
