"""2,000 episodes at once: memory grows with their number, not with their length."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import psutil
import pytest
from small_agent import normalizer

from configs import quickstart
from dt_jax import envs
from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.evaluation.evaluator import Evaluator

EPISODES = 2_000  # for which 1000 steps [S + A + 1] would be 190 MB
CHUNK = 25  # timesteps between two measurements
MB_PER_EPISODE = 1.0  # HalfCheetah's MjModel and MjData, most of it; no history


def resident_megabytes():
    return psutil.Process().memory_info().rss / 1e6


def evaluate(episodes):
    """Evaluate once; return lengths, and memory before, in each chunk, and at most."""
    config = quickstart.get_config()
    spec = envs.lookup(config.env_name)
    units = normalizer(spec.observation_size, spec.action_size, config.reward_scale)
    agent = DecisionTransformerAgent.from_config(config, units)
    params = jax.jit(agent.init_params)(jax.random.key(0))
    targets = config.target_returns[:1]
    Evaluator(agent, spec, targets, episodes=1, seed=0)(params)  # libraries, programs
    before, seen = resident_megabytes(), []
    evaluation = Evaluator(agent, spec, targets, episodes, seed=0)(
        params, between_chunks=lambda: seen.append(resident_megabytes())
    )
    return evaluation.lengths, before, seen, peak_megabytes()


def peak_megabytes():
    """Return the peak of resident memory of this process, in MB."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_memory_does_not_grow_with_the_length_of_episodes(record_property):
    spawn = multiprocessing.get_context("spawn")  # a fresh process
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        lengths, before, seen, peak = process.submit(evaluate, EPISODES).result()
    assert lengths.shape == (1, EPISODES)
    assert (lengths == 1000).all()
    early, late = seen[2 * 100 // CHUNK - 1], seen[-1]  # both halves append
    record_property(
        f"{EPISODES:,} episodes of 1000 steps",
        f"{before:.0f} MB before, {peak:.0f} MB peak, "
        f"{(peak - before) / EPISODES:.2f} MB per episode",
    )
    record_property(
        "memory after 100 and after 1000 steps", f"{early:.0f} MB, {late:.0f} MB"
    )
    assert len(seen) == 2 * 1000 // CHUNK
    assert late < 1.02 * early
    assert peak < before + MB_PER_EPISODE * EPISODES
