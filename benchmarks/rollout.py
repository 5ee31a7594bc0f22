"""The speed of evaluation by network, and compared with PyTorch.

    python benchmarks/rollout.py [--baseline=torch] [--episodes=1,100] [--rounds=3]

Plays HalfCheetah episodes of 1000 steps with untrained networks of CORL's sizes: its
own, one with attention to a band of timesteps, and one with a convolution. The first
table has seconds per evaluation of N episodes at once (also milliseconds per timestep),
the ratio to CORL's network, the environment's milliseconds per timestep, and the ratio
to PyTorch, which plays as CORL does: one episode at a time in Gymnasium's environment,
with the last 20 timesteps through the network at each step. One of its episodes is
played per round and counts N times.

The second table has the latency of `Policy.act` for one episode, and of one forward
pass in PyTorch.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import jax
import numpy as np
import workload
from rich.console import Console
from rich.table import Table

from dt_jax import envs
from dt_jax.agents.base import Agent
from dt_jax.data.registry import lookup
from dt_jax.evaluation.evaluator import Evaluator
from dt_jax.evaluation.policy import Policy

NETWORKS: dict[str, dict[str, Any]] = {
    "attention": {},
    "band": {"attention_band": "fit"},
    "conv": {"mixer": "conv"},
}
TARGET = 6000.0
SPEC = lookup("halfcheetah-medium-v2")


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baseline", choices=["torch"])
    parser.add_argument("--episodes", default="1,100")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"on {jax.devices()[0].device_kind}, JAX {jax.__version__}")
    agents = {
        name: workload.agent(workload.config(**keys)) for name, keys in NETWORKS.items()
    }
    params = {
        name: jax.jit(agent.init)(jax.random.key(0)).params
        for name, agent in agents.items()
    }
    torch_episode = TorchPlayer(workload.config()) if args.baseline else None

    table = Table("N", "network", "s per evaluation", "ratio", "of it environment, ms")
    table.add_column("PyTorch, s per episode")
    table.add_column("times as fast")
    for episodes in map(int, args.episodes.split(",")):
        ways: dict[str, Callable[[], Any]] = {}
        for name, agent in agents.items():
            evaluator = Evaluator(agent, SPEC, [TARGET], episodes, seed=0)
            ways[name] = partial(evaluator, params[name])
            ways[name]()  # compiles
        if torch_episode:
            ways["torch"] = torch_episode.play
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, call in ways.items():
                times[name].append(seconds_of(call))
        rounds = {name: np.array(seconds) for name, seconds in times.items()}
        theirs = rounds.pop("torch", np.full(args.rounds, np.nan))
        for name, seconds in rounds.items():
            table.add_row(
                str(episodes),
                name,
                f"{np.median(seconds):.2f}",
                f"{workload.ratio(seconds, rounds['attention']):.3f}",
                f"{environment(episodes):.2f}",
                f"{np.median(theirs):.2f}",
                f"{np.median(episodes * theirs / seconds):.2f}",
            )
    Console().print(table)

    ways = {
        f"Policy.act, {name}": player(agent, params[name])
        for name, agent in agents.items()
    }
    if torch_episode:
        ways["PyTorch, forward"] = torch_episode.forward
    latency = Table("one episode", "ms")
    for way, seconds in workload.seconds_of(ways, args.rounds, 2.0).items():
        latency.add_row(way, f"{1e3 * np.median(seconds):.3f}")
    Console().print(latency)


def player(agent: Agent, params: Any) -> Callable[[], None]:
    """Return a function that chooses the next action of an episode."""
    policy = Policy(agent, params)
    policy.reset(TARGET)
    observation = np.zeros(workload.STATE, np.float32)
    policy.act(observation)

    def act() -> None:
        if policy._episodes.lengths[0] == workload.EPISODE:
            policy.reset(TARGET)
        policy.act(observation, 0.0)

    return act


def seconds_of(call: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def environment(episodes: int, steps: int = 200) -> float:
    """Return the milliseconds of the environment per timestep."""
    env = envs.make(SPEC, list(range(episodes)))
    env.host_reset()
    actions = np.zeros((episodes, workload.ACTION), np.float32)
    start = time.perf_counter()
    for _ in range(steps):
        env.host_step(actions)
    return 1e3 * (time.perf_counter() - start) / steps


class TorchPlayer:
    """Plays episodes in PyTorch one at a time, with a window of T timesteps."""

    def __init__(self, config: Any):
        import torch
        import torch_dt

        print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
        self._torch, self._t = torch, config.seq_len
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        model = torch_dt.DecisionTransformer(config, workload.STATE, workload.ACTION)
        self._model = model.eval().to(self._device)
        self._scale = config.reward_scale
        self._env = gymnasium.make("HalfCheetah-v4")

    def play(self) -> None:
        """Play one episode until it ends."""
        torch, n = self._torch, workload.EPISODE
        with torch.inference_mode():
            zeros = torch.zeros(n + 1, workload.STATE, device=self._device)
            states, actions = zeros, zeros[:, : workload.ACTION].clone()
            returns = torch.full((n + 1,), TARGET * self._scale, device=self._device)
            timesteps = torch.arange(n, device=self._device)
            state, _ = self._env.reset()
            for t in range(n):
                states[t] = torch.as_tensor(state)
                window = slice(max(t + 1 - self._t, 0), t + 1)
                predicted = self._model(
                    states[None, window],
                    actions[None, window],
                    returns[None, window],
                    timesteps[None, window],
                )
                actions[t] = predicted[0, -1]
                state, reward, *_ = self._env.step(actions[t].cpu().numpy())
                returns[t + 1] = returns[t] - reward * self._scale

    def forward(self) -> None:
        """Run the network once on a full window."""
        torch, t = self._torch, self._t
        with torch.inference_mode():
            states = torch.zeros(1, t, workload.STATE, device=self._device)
            timesteps = torch.arange(t, device=self._device)[None]
            actions = states[..., : workload.ACTION]
            self._model(states, actions, states[..., 0], timesteps).cpu()


if __name__ == "__main__":
    main()
