"""What the benchmarks of training and rollouts measure: CORL's sizes, HalfCheetah's."""

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

sys.path.append(str(Path(__file__).parents[1]))  # configs are no package

from dt_jax.agents.base import TrainState
from dt_jax.agents.dt import (
    DecisionTransformerAgent,
    init_train_state,
    make_update,
)
from dt_jax.agents.optim import optimizer_from_config
from dt_jax.config import default_config
from dt_jax.data.sampler import Sampler
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories
from dt_jax.training.multi_step import Update
from dt_jax.utils.sharding import place

STATE, ACTION, EPISODE = 17, 6, 1000


def config(**changes: Any) -> ConfigDict:
    """Return the default configuration, which has CORL's sizes, with `changes`."""
    config = default_config()
    config.update(changes)
    return config.lock()


def agent(
    config: ConfigDict, observation_size: int = STATE, action_size: int = ACTION
) -> DecisionTransformerAgent:
    """Return an agent that leaves its numbers as they are."""
    units = _units(observation_size, action_size)
    return DecisionTransformerAgent.from_config(config, **units)


def sampler(config: ConfigDict, transitions: int = 100_000) -> Sampler:
    """Return a sampler of random episodes of 1000 steps."""
    rng = np.random.default_rng(0)
    raw = RawData(
        observations=rng.standard_normal((transitions, STATE), np.float32),
        actions=rng.uniform(-1, 1, (transitions, ACTION)).astype(np.float32),
        rewards=rng.standard_normal(transitions, np.float32),
        terminals=np.zeros(transitions, bool),
        timeouts=np.arange(1, transitions + 1) % EPISODE == 0,
    )
    return Sampler(
        Trajectories.from_raw(raw, source="random"),
        batch_size=config.batch_size,
        seq_len=config.seq_len,
        reward_scale=config.reward_scale,
        seed=config.train_seed,
        **_units(STATE, ACTION),
    )


def training(
    config: ConfigDict, observation_size: int = STATE, action_size: int = ACTION
) -> tuple[Update, TrainState]:
    """Return the training step, of all seeds, and the state before the first one."""
    ours = agent(config, observation_size, action_size)
    optimizer, schedule = optimizer_from_config(config)
    begin = partial(init_train_state, ours, optimizer)
    update = make_update(ours, optimizer, schedule)
    seeds = np.arange(config.train_seed, config.train_seed + config.num_seeds)
    if len(seeds) > 1:
        begin, update = jax.vmap(begin), jax.vmap(update)
    state = jax.jit(begin, out_shardings=place(config).state)(seeds.squeeze())
    return update, state


def seconds_of(
    ways: Mapping[str, Callable[[], Any]], rounds: int, seconds: float
) -> dict[str, np.ndarray]:
    """Return the times of a call [rounds] in each way, taken in turn.

    Compare them by `ratio`, for the machine may be slower in one round than in another.

    Args:
      ways: a name -> what is to be called; it returns when all is done.
      rounds: in each of which every way has its turn.
      seconds: of a turn at least.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for call in ways.values():
        call()  # what has to be compiled is
    for _ in range(rounds):
        for name, call in ways.items():
            start, calls = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                call()
                calls += 1
            times[name].append((time.perf_counter() - start) / calls)
    return {name: np.array(turns) for name, turns in times.items()}


def ratio(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the median over rounds of the ratio of two ways' times."""
    return float(np.median(ours / theirs))


def _units(observation_size: int, action_size: int) -> dict[str, np.ndarray]:
    return {
        "state_mean": np.zeros(observation_size, np.float32),
        "state_std": np.ones(observation_size, np.float32),
        "action_center": np.zeros(action_size, np.float32),
        "action_scale": np.ones(action_size, np.float32),
    }
