"""What do the published expert policies of DAPG reach in our Adroit environments?

    python benchmarks/dapg_experts.py FOLDER [--episodes=128]

FOLDER holds the weights as dapg_{pen,door,hammer,relocate}.npz. They are those of
https://github.com/aravindr93/hand_dapg (Apache-2.0), which keeps them pickled in
dapg/policies, and are not part of this project. Arrays of a file: in_shift, in_scale,
W0, b0, W1, b1, W2, b2, out_scale, out_shift and log_std. With o an observation,

    mean = W2 tanh(W1 tanh(W0 (o - in_shift) / in_scale + b0) + b1) + b2
    action = clip(out_scale mean + out_shift + exp(log_std) N(0, 1), -1, 1)

The reference was measured elsewhere, over 128 episodes.
"""

import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from dt_jax.envs import episode_seeds
from dt_jax.envs.adroit import AdroitEnv
from dt_jax.envs.scores import normalized_score
from dt_jax.errors import OneLineParser, UserError, exit_with_one_line
from dt_jax.registry import lookup

REFERENCE = {"pen": 100.8, "door": 100.5, "hammer": 115.1, "relocate": 98.9}


def main() -> None:
    """Play every task and print the table."""
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=128)
    args = parser.parse_args()
    if args.episodes < 1:
        parser.error(f"--episodes={args.episodes} is less than 1")

    table = Table("task", "return ± se", "score ± se", "reference", "steps/s")
    for task, reference in REFERENCE.items():
        spec = lookup(f"{task}-expert-v1")
        env = AdroitEnv(task, episode_seeds(0, args.episodes), spec.max_episode_steps)
        returns, speed = play(env, load(args.folder / f"dapg_{task}.npz"))
        scores = normalized_score(spec, returns)
        table.add_row(
            task, cell(returns), cell(scores), str(reference), f"{speed:,.0f}"
        )
    Console().print(table)


def load(path: Path) -> dict[str, np.ndarray]:
    """Read a policy's arrays."""
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; see the start of {Path(__file__).name}"
        )
    with np.load(path) as file:
        return dict(file)


def play(env: AdroitEnv, policy: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """Play every episode to its end; returns [N] and control steps a second."""
    rng = np.random.default_rng(0)
    observations = env.host_reset()
    running, returns, steps = np.ones(env.num_envs, bool), np.zeros(env.num_envs), 0
    start = time.perf_counter()
    while running.any():
        observations, rewards, done = env.host_step(act(policy, observations, rng))
        returns += running * rewards
        running &= ~done
        steps += env.num_envs  # EnvPool steps those that have ended too
    return returns, steps / (time.perf_counter() - start)


def act(
    policy: dict[str, np.ndarray], observations: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Sample actions [N, A]; the environment clips them."""
    x = (observations - policy["in_shift"]) / policy["in_scale"]
    x = np.tanh(x @ policy["W0"].T + policy["b0"])
    x = np.tanh(x @ policy["W1"].T + policy["b1"])
    x = x @ policy["W2"].T + policy["b2"]
    means = x * policy["out_scale"] + policy["out_shift"]
    return means + np.exp(policy["log_std"]) * rng.standard_normal(means.shape)


def cell(values: np.ndarray) -> str:
    """Write a mean and its standard error."""
    return f"{values.mean():.1f} ± {values.std() / np.sqrt(len(values)):.1f}"


if __name__ == "__main__":
    exit_with_one_line(main)
