"""A critic's Q against the discounted returns that followed in the data.

    python benchmarks/critic_values.py runs/iql runs/qt [--out=critic.png]

For each run of iql, cql or qt (of qcs: its folder critic/), and its first seed: Q(s, a)
of recorded steps, held-out ones if the run has any, and the discounted return from
there on. Steps whose return is cut off by a time limit before its discount has fallen
to 1 % are left out. Prints means, also of the tenth with the largest Q, and Spearman's
rank correlation. Draws both, with the mean return of each twentieth by Q, which a
perfect critic would equal. (Not the mean Q by return: a high return is partly luck.)
"""

import argparse
import math
from functools import partial
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.signal import lfilter
from scipy.stats import spearmanr

from dt_jax.agents.qt import QRegularizedTransformerAgent
from dt_jax.config.load import from_dict
from dt_jax.data.trajectories import Trajectories
from dt_jax.envs import spec_from_config
from dt_jax.evaluation.policy import TrainedAgent, load_agent
from dt_jax.networks.critics import apply
from dt_jax.training.train import load_data

STEPS = 50_000  # shown


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("critic.png"))
    args = parser.parse_args()
    columns = "run", "steps", "mean Q", "return", "top tenth Q", "return", "Spearman"
    table = Table(*columns)
    figure = Figure(figsize=(4.5 * len(args.runs), 4.2), layout="constrained")
    for column, run in enumerate(args.runs, 1):
        trained = load_agent(run, "last")
        q, returns, kind = values_and_returns(trained)
        groups = np.array_split(np.argsort(q), 20)
        means = [[values[rows].mean() for rows in groups] for values in (q, returns)]
        top = np.concatenate(groups[-2:])
        numbers = q.mean(), returns.mean(), q[top].mean(), returns[top].mean()
        correlation = f"{spearmanr(q, returns).statistic:.2f}"
        cells = [f"{number:.0f}" for number in numbers]
        table.add_row(run.name, f"{len(q):,} {kind}", *cells, correlation)
        axes = figure.add_subplot(1, len(args.runs), column)
        axes.scatter(q, returns, s=2, alpha=0.1, linewidths=0, rasterized=True)
        axes.plot(*means, color="C1", marker=".")
        axes.axline((returns.mean(), returns.mean()), slope=1, color="0.5", ls=":")
        axes.set(xlabel="Q", ylabel="discounted return that followed", title=run.name)
        axes.grid(alpha=0.3)
    Console().print(table)
    figure.savefig(args.out, dpi=120)
    print(args.out)


def values_and_returns(trained: TrainedAgent) -> tuple[np.ndarray, np.ndarray, str]:
    """Return Q and the discounted return of up to `STEPS` steps, and of which kind."""
    agent, config = trained.agent, from_dict(trained.record["config"])
    data, kind = load_data(config, spec_from_config(config)).trajectories, "trained on"
    if config.holdout_fraction:
        data, kind = data.hold_out(config.holdout_fraction)[1], "held out"
    rows, returns = discounted_returns(data, config.discount)
    chosen = np.random.default_rng(0).permutation(len(rows))[:STEPS]
    rows, returns = rows[chosen], returns[chosen]
    units, params = agent.normalizer, trained.seed_params(None)
    states = units.normalize_states(data.observations[rows].astype(np.float32))
    actions = (data.actions[rows] - units.action_center) / units.action_scale
    q = jax.jit(partial(apply, agent.critic))(params["critic"], states, actions)
    scale = units.reward_scale
    if isinstance(agent, QRegularizedTransformerAgent):
        scale *= agent.critic_scale
    return np.asarray(q.min(axis=0)) / scale, returns, kind


def discounted_returns(
    data: Trajectories, discount: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows whose discounted return is known, and that return."""
    rows, returns = [], []
    cut = math.inf if discount == 1 else math.log(0.01) / math.log(discount)
    trajectories = zip(data.starts, data.lengths, data.terminated, strict=True)
    for start, length, terminated in trajectories:
        backwards = data.rewards[start : start + length][::-1].astype(np.float64)
        following = lfilter([1.0], [1.0, -discount], backwards)[::-1]
        known = length if terminated else int(max(0, length - cut))
        rows.append(start + np.arange(known))
        returns.append(following[:known])
    return np.concatenate(rows), np.concatenate(returns)


if __name__ == "__main__":
    main()
