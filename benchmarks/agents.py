"""The cost of every agent beside a Decision Transformer of equal width.

    python benchmarks/agents.py [--sizes=laptop,paper] [--work=update,act,rollout]

Updates of 64 windows of 20 timesteps, or of 64 transitions for bc, iql, cql and
expected_return; acting in one episode by `Policy.act`; and a timestep of 10 HalfCheetah
episodes, environment included. The updates of qdt and esper are those of dt; their
labels come from iql or cql, and from cluster_return or expected_return. "paper" is QT's
network (4 layers and heads, width 256), "laptop" CORL's (3 layers, 1 head, width 128).
Columns: milliseconds, and the median ratio to the first row of the same work.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import workload
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from dt_jax.agents import agent_class
from dt_jax.data.registry import lookup
from dt_jax.evaluation.evaluator import Evaluator
from dt_jax.evaluation.policy import Policy

SIZES = {
    "laptop": {"embedding_dim": 128, "num_layers": 3, "num_heads": 1},
    "paper": {"embedding_dim": 256, "num_layers": 4, "num_heads": 4},
}
QT = {"agent": "qt", "best_return": 1.0, "return_range": 1.0}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "update": {
        "dt": {},
        "dt, band": {"attention_band": "fit"},
        "dt, conv": {"mixer": "conv"},
        "qt": QT | {"mode": "qt"},
        "qcs": QT | {"mode": "qcs"},
        "bc": {"agent": "bc"},
        "iql": {"agent": "iql"},
        "cql": {"agent": "cql"},
        "cluster_return": {"agent": "cluster_return", "episode_len": 20},
        "expected_return": {"agent": "expected_return"},
    },
    "act": {
        "dt": {},
        "dt, band": {"attention_band": "fit"},
        "dt, conv": {"mixer": "conv"},
        "qt, 1 candidate": QT | {"num_candidates": 1},
        "qt, 50 candidates": QT | {"num_candidates": 50},
        "bc": {"agent": "bc"},
        "iql": {"agent": "iql"},
    },
    "rollout": {
        "qt, 1 candidate": QT | {"num_candidates": 1},
        "qt, 50 candidates": QT | {"num_candidates": 50},
    },
}
TARGET, ROLLOUT = 6000.0, 50


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="laptop,paper")
    parser.add_argument("--work", default="update,act,rollout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    table = Table("size", "work", "agent", "ms", "ratio")
    make = {"update": update, "act": act, "rollout": rollout}
    for size in args.sizes.split(","):
        for work in args.work.split(","):
            ways = {
                name: make[work](size, **keys) for name, keys in VARIANTS[work].items()
            }
            times = workload.seconds_of(ways, args.rounds, args.seconds)
            first = next(iter(times.values()))
            for name, seconds in times.items():
                ms = 1e3 * np.median(seconds) / (ROLLOUT if work == "rollout" else 1)
                ratio = workload.ratio(seconds, first)
                table.add_row(size, work, name, f"{ms:.2f}", f"{ratio:.3f}")
    Console().print(table)


def configured(size: str, keys: dict[str, Any]) -> ConfigDict:
    """Return an agent's configuration, with networks of one width."""
    width = SIZES[size]["embedding_dim"]
    widths = dict.fromkeys(("hidden_dim", "critic_dim", "return_dim"), width)
    known = {key.name for key in agent_class(keys.get("agent", "dt")).KEYS}
    sizes = {k: v for k, v in (SIZES[size] | widths).items() if k in known}
    return workload.config(**sizes, **keys)


def update(size: str, **keys: Any) -> Callable[[], None]:
    """Return a function that makes one update of a batch of 64."""
    config = configured(size, keys)
    batch = workload.sampler(config).batch(0)
    step, state = workload.training(config)
    step = jax.jit(step)

    def call() -> None:
        jax.block_until_ready(step(state, batch))

    return call


def trained(size: str, keys: dict[str, Any]) -> tuple[Any, Any]:
    """Return an untrained agent and its acting parameters."""
    agent = workload.agent(configured(size, keys))
    return agent, jax.jit(lambda key: agent.acting_params(agent.init(key)))(
        jax.random.key(0)
    )


def act(size: str, **keys: Any) -> Callable[[], None]:
    """Return a function that chooses an action in one episode."""
    policy = Policy(*trained(size, keys))
    target = TARGET if policy.agent.conditioned else None
    policy.reset(target)
    observation = np.zeros(workload.STATE, np.float32)
    policy.act(observation)

    def call() -> None:
        if policy._episodes.lengths[0] == workload.EPISODE:
            policy.reset(target)
        policy.act(observation, 0.0)

    return call


def rollout(size: str, **keys: Any) -> Callable[[], None]:
    """Return a function that plays the first steps of 10 episodes."""
    agent, params = trained(size, keys | {"episode_len": ROLLOUT})
    evaluator = Evaluator(agent, lookup("halfcheetah-medium-v2"), [TARGET], 10, seed=0)
    return lambda: evaluator(params)


if __name__ == "__main__":
    main()
