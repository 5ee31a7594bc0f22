"""The memory of 2,000 parallel episodes is independent of their length."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import psutil
import pytest
from small_agent import normalizer

from dt_jax import envs
from dt_jax.agents import make_agent
from dt_jax.config import load_config
from dt_jax.evaluation.evaluator import Evaluator
from dt_jax.rollout.rollout import CHUNK

EPISODES = 2_000  # of which 1000 steps [S + A + 1] would take 190 MB
MB_PER_EPISODE = 1.0  # HalfCheetah's MjModel and MjData, for the most part


def resident_mb():
    return psutil.Process().memory_info().rss / 1e6


def peak_mb():
    """Return the peak resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e6


def evaluate(episodes):
    """Evaluate once.

    Returns:
      The lengths of the episodes, and the memory before, after each chunk of timesteps,
      and at the peak.
    """
    config = load_config("configs/quickstart.py")
    spec = envs.lookup(config.env_name)
    agent = make_agent(config, normalizer(spec.observation_size, spec.action_size))
    params = jax.jit(agent.init)(jax.random.key(0)).params
    targets = config.target_returns[:1]
    Evaluator(agent, spec, targets, episodes=1, seed=0)(params)  # loads and compiles
    before, chunks = resident_mb(), []
    evaluation = Evaluator(agent, spec, targets, episodes, seed=0)(
        params, between_chunks=lambda: chunks.append(resident_mb())
    )
    return evaluation.lengths, before, chunks, peak_mb()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_memory_is_proportional_to_episodes_and_not_to_their_length(record_property):
    spawn = multiprocessing.get_context("spawn")  # a process without earlier tests
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        lengths, before, chunks, peak = process.submit(evaluate, EPISODES).result()
    assert lengths.shape == (1, EPISODES)
    assert (lengths == 1000).all()
    # Two halves of the episodes are played at once, each by its own chunks.
    early, late = chunks[2 * 100 // CHUNK - 1], chunks[-1]
    record_property(
        f"{EPISODES:,} episodes of 1000 steps",
        f"{before:.0f} MB before, {peak:.0f} MB at the peak, "
        f"{(peak - before) / EPISODES:.2f} MB per episode",
    )
    record_property(
        "memory after 100 and after 1000 steps", f"{early:.0f} MB, {late:.0f} MB"
    )
    assert len(chunks) == 2 * 1000 // CHUNK
    assert late < 1.02 * early
    assert peak < before + MB_PER_EPISODE * EPISODES
