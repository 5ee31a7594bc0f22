"""The workload of the benchmarks: CORL's network on data of HalfCheetah's sizes."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from dt_jax.agents import make_agent
from dt_jax.agents.base import Agent, TrainState
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
) -> Agent:
    """Return an agent without normalisation of states and actions."""
    units = normalizer(config.get("reward_scale") or 1.0, observation_size, action_size)
    return make_agent(config, units)


def normalizer(
    reward_scale: float, observation_size: int = STATE, action_size: int = ACTION
) -> Normalizer:
    """Return a normalizer that leaves states and actions unchanged."""
    return Normalizer(
        np.zeros(observation_size, np.float32),
        np.ones(observation_size, np.float32),
        np.zeros(action_size, np.float32),
        np.ones(action_size, np.float32),
        reward_scale,
    )


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
    return sampler_of(Trajectories.from_raw(raw, source="random"), config)


def sampler_of(trajectories: Trajectories, config: ConfigDict) -> Sampler:
    """Return a sampler of trajectories without normalisation."""
    sizes = trajectories.observations.shape[1], trajectories.actions.shape[1]
    model = agent(config, *sizes)
    return Sampler(
        trajectories,
        model.normalizer,
        batch_size=config.batch_size,
        context_len=model.context_len,
        seed=config.train_seed,
        fields=model.batch_fields,
    )


def sharding(config: ConfigDict) -> RunSharding:
    """Return the sharding of a run."""
    return make_sharding(config.num_devices, config.num_seeds, config.batch_size)


def training(
    config: ConfigDict, observation_size: int = STATE, action_size: int = ACTION
) -> tuple[Update, TrainState]:
    """Return the training step of all seeds and the initial state."""
    model = agent(config, observation_size, action_size)
    if config.num_seeds > 1:
        model = MultiSeedAgent(model, config.num_seeds)
    seeds = np.arange(config.train_seed, config.train_seed + config.num_seeds)

    def init(seeds: Any) -> TrainState:
        keys = jax.vmap(jax.random.key)(seeds)
        return model.init(keys if config.num_seeds > 1 else keys[0])

    state = jax.jit(init, out_shardings=sharding(config).state)(seeds)
    return model.update, state


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
