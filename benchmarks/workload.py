"""The workload of the benchmarks: CORL's network on data of HalfCheetah's sizes."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from dt_jax.agents.base import TrainState
from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.agents.multi_seed import MultiSeedAgent
from dt_jax.config import default_config
from dt_jax.data.normalizer import Normalizer
from dt_jax.data.sampler import Sampler
from dt_jax.data.schema import RawData
from dt_jax.data.trajectories import Trajectories
from dt_jax.training.multi_step import Update
from dt_jax.utils.sharding import RunSharding, make_sharding

STATE, ACTION, EPISODE = 17, 6, 1000


def config(**changes: Any) -> ConfigDict:
    """Return the default configuration (CORL's sizes) with `changes`."""
    return default_config(**changes).lock()


def agent(
    config: ConfigDict, observation_size: int = STATE, action_size: int = ACTION
) -> DecisionTransformerAgent:
    """Return an agent without normalisation."""
    state_mean = np.zeros(observation_size, np.float32)
    normalizer = _normalizer(config, state_mean, state_mean + 1, action_size)
    return DecisionTransformerAgent.from_config(config, normalizer)


def random_trajectories(transitions: int = 100_000) -> Trajectories:
    """Return random episodes of 1000 steps."""
    rng = np.random.default_rng(0)
    raw = RawData(
        observations=rng.standard_normal((transitions, STATE), np.float32),
        actions=rng.uniform(-1, 1, (transitions, ACTION)).astype(np.float32),
        rewards=rng.standard_normal(transitions, np.float32),
        terminals=np.zeros(transitions, bool),
        timeouts=np.arange(1, transitions + 1) % EPISODE == 0,
    )
    return Trajectories.from_raw(raw, source="random")


def sampler(config: ConfigDict, trajectories: Trajectories) -> Sampler:
    """Return the sampler of a run on `trajectories`."""
    state_mean, state_std = trajectories.state_mean, trajectories.state_std
    return Sampler(
        trajectories,
        _normalizer(config, state_mean, state_std, trajectories.actions.shape[1]),
        batch_size=config.batch_size,
        context_len=config.seq_len,
        seed=config.train_seed,
        fields=DecisionTransformerAgent.batch_fields,
    )


def sharding(config: ConfigDict) -> RunSharding:
    """Return the sharding of a run."""
    return make_sharding(config.num_devices, config.num_seeds, config.batch_size)


def training(
    config: ConfigDict, observation_size: int = STATE, action_size: int = ACTION
) -> tuple[Update, TrainState]:
    """Return the training step of all seeds and the initial state."""
    one = agent(config, observation_size, action_size)
    num_seeds = config.num_seeds
    actor = one if num_seeds == 1 else MultiSeedAgent(one, num_seeds)
    seeds = np.arange(config.train_seed, config.train_seed + num_seeds)
    keys = jax.vmap(jax.random.key)(seeds)
    init = jax.jit(actor.init, out_shardings=sharding(config).state)
    return actor.update, init(keys if num_seeds > 1 else keys[0])


def seconds_of(
    ways: Mapping[str, Callable[[], Any]], rounds: int, seconds: float
) -> dict[str, np.ndarray]:
    """Return the seconds per call [rounds] of each variant, measured in turns.

    Compare them with `ratio`: the speed of the machine may change between rounds.

    Args:
      ways: name -> function; it returns when its work is done.
      rounds: every variant takes one turn per round.
      seconds: minimum duration of a turn.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for call in ways.values():
        call()  # compiles
    for _ in range(rounds):
        for name, call in ways.items():
            start, calls = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                call()
                calls += 1
            times[name].append((time.perf_counter() - start) / calls)
    return {name: np.array(turns) for name, turns in times.items()}


def ratio(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the median over rounds of the ratio of two variants' times."""
    return float(np.median(ours / theirs))


def _normalizer(
    config: ConfigDict, state_mean: np.ndarray, state_std: np.ndarray, action_size: int
) -> Normalizer:
    center = np.zeros(action_size, np.float32)
    return Normalizer(state_mean, state_std, center, center + 1, config.reward_scale)
