"""2,000 episodes at once: memory grows with their number and not with their length."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import numpy as np
import psutil
import pytest

from configs import quickstart
from dt_jax import envs
from dt_jax.agents.dt import SCALING, DecisionTransformerAgent
from dt_jax.evaluation.evaluator import Evaluator

EPISODES = 2_000  # for which 1000 steps [S + A + 1] would be 190 MB
CHUNK = 25  # timesteps between two looks at the memory
MB_AN_EPISODE = 1.0  # HalfCheetah's MjModel and MjData, most of it; no history


def megabytes():
    return psutil.Process().memory_info().rss / 1e6


def evaluated(episodes):
    """Evaluate once; return lengths, and the memory before, at each look, at most."""
    config = quickstart.get_config()
    spec = envs.lookup(config.env_name)
    sizes = (spec.observation_size,) * 2 + (spec.action_size,) * 2
    scaling = {
        name: np.full(size, name.endswith(("std", "scale")), np.float32)
        for name, size in zip(SCALING, sizes, strict=True)
    }
    agent = DecisionTransformerAgent.from_config(config, **scaling)
    params = jax.jit(agent.init_params)(jax.random.key(0))
    targets = config.target_returns[:1]
    Evaluator(agent, spec, targets, episodes=1, seed=0)(params)  # libraries, programs
    before, seen = megabytes(), []
    evaluation = Evaluator(agent, spec, targets, episodes, seed=0)(
        params, between_chunks=lambda: seen.append(megabytes())
    )
    return evaluation.lengths, before, seen, highest()


def highest():
    """Return the most that was resident since this process began, in MB."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_memory_grows_with_the_episodes_and_not_with_their_length(record_property):
    spawn = multiprocessing.get_context("spawn")  # a process of its own, with no past
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        lengths, before, seen, peak = process.submit(evaluated, EPISODES).result()
    assert lengths.shape == (1, EPISODES)
    assert (lengths == 1000).all()
    early, late = seen[2 * 100 // CHUNK - 1], seen[-1]  # two halves see it
    record_property(
        f"{EPISODES:,} episodes of 1000 steps",
        f"{before:.0f} MB before, {peak:.0f} MB at the highest, "
        f"{(peak - before) / EPISODES:.2f} MB an episode",
    )
    record_property(
        "memory after 100 and after 1000 steps", f"{early:.0f} MB, {late:.0f} MB"
    )
    assert len(seen) == 2 * 1000 // CHUNK
    assert late < 1.02 * early
    assert peak < before + MB_AN_EPISODE * EPISODES
