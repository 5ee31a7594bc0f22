"""The speed of evaluation compared with PyTorch, which plays one episode at a time.

    python benchmarks/rollout.py [--baseline=torch] [--episodes=1,100] [--rounds=3]

Plays HalfCheetah episodes of 1000 steps with an untrained network of CORL's sizes. The
first table has seconds per evaluation of N episodes at once, milliseconds per timestep
of all of them, the environment's part of that, and the ratio to PyTorch, which plays as
CORL does: one episode at a time in Gymnasium's environment, with the last 20 timesteps
through the network at each step. One of its episodes is played per round and counts N
times.

The second table has the latency of `Policy.act` for one episode, and of one forward
pass in PyTorch.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import numpy as np
import workload
from rich.console import Console
from rich.table import Table

from dt_jax import envs
from dt_jax.data.registry import lookup
from dt_jax.evaluation.evaluator import Evaluator
from dt_jax.evaluation.policy import Policy

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
    config = workload.config()
    agent = workload.agent(config)
    params = jax.jit(agent.init)(jax.random.key(0)).params
    torch_episode = None
    if args.baseline:
        torch_episode = TorchPlayer(config)

    table = Table("N", "s per evaluation", "ms per timestep", "of it environment")
    table.add_column("PyTorch, s per episode")
    table.add_column("times as fast")
    for episodes in map(int, args.episodes.split(",")):
        evaluator = Evaluator(agent, SPEC, [TARGET], episodes, seed=0)
        evaluator(params)  # compiles
        times: list[tuple[float, float]] = []
        for _ in range(args.rounds):
            ours = seconds_of(lambda: evaluator(params))  # noqa: B023
            theirs = seconds_of(torch_episode.play) if torch_episode else np.nan
            times.append((ours, theirs))
        ours, theirs = np.median(times, axis=0)
        ratio = np.median([episodes * theirs / ours for ours, theirs in times])
        table.add_row(
            str(episodes),
            f"{ours:.2f}",
            f"{ours:.2f}",  # 1000 steps
            f"{environment(episodes):.2f}",
            f"{theirs:.2f}",
            f"{ratio:.2f}",
        )
    Console().print(table)

    policy = Policy(agent, params)
    policy.reset(TARGET)
    observation = np.zeros(workload.STATE, np.float32)
    policy.act(observation)

    def act() -> None:
        if policy._episodes.lengths[0] == workload.EPISODE:
            policy.reset(TARGET)
        policy.act(observation, 0.0)

    ways: dict[str, Callable[[], Any]] = {"dt_jax, Policy.act": act}
    if torch_episode:
        ways["PyTorch, forward"] = torch_episode.forward
    latency = Table("one episode", "ms")
    for way, times in workload.seconds_of(ways, args.rounds, 2.0).items():
        latency.add_row(way, f"{1e3 * np.median(times):.2f}")
    Console().print(latency)


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
