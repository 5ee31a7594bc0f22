"""The decisive test of stitching: what only a relabelled dataset teaches.

The corridor's data has the returns 0 and 1 from the start and 10 from elsewhere; the
best policy joins two trajectories and returns 10 (dt_jax/envs/tabular.py).
"""

import numpy as np
import pytest

from dt_jax.config.load import CONFIGS, load_config
from dt_jax.datasets.demo import collect_demo
from dt_jax.runs.evaluations import Evaluation
from dt_jax.runs.folder import read_run
from dt_jax.training.train import train


@pytest.fixture(scope="module")
def corridor(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "corridor.hdf5"
    collect_demo("corridor-demo", path)
    return path


def returns_of(config_file, data, workdir, **changes):
    """Train the shipped configuration for 5 seeds; return each seed's mean return."""
    changes = {
        "eval_every": 300,
        "update_steps": 300,
        "warmup_steps": 30,
        "eval_episodes": 1,  # nothing is random
        "checkpoint_every": 10_000,
        "log_every": 100,
        "steps_per_dispatch": 100,
    } | changes
    config = load_config(
        str(CONFIGS / config_file), data_path=str(data), num_seeds=5, **changes
    )
    train(config, workdir)
    _, evaluation = read_run(workdir).newest
    return evaluation.returns.mean(axis=(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["corridor.py", "qdt/corridor.py", "qt/corridor.py"])
def test_initial_network_does_not_return_10(corridor, tmp_path, file):
    """Otherwise the learning curve of the shipped configuration would show nothing."""
    config = load_config(
        str(CONFIGS / file),
        data_path=str(corridor),
        update_steps=1,
        **({} if file == "corridor.py" else {"critic_update_steps": 1}),
    )
    train(config, tmp_path)
    assert Evaluation.load(tmp_path / "eval" / "0.npz").returns.max() <= 1


def test_a_decision_transformer_asked_for_10_returns_1(corridor, tmp_path):
    returns = returns_of("corridor.py", corridor, tmp_path / "dt")
    assert (returns <= 1.5).all()


def test_q_learning_dt_joins_trajectories_and_returns_10(corridor, tmp_path):
    workdir = tmp_path / "qdt"
    returns = returns_of("qdt/corridor.py", corridor, workdir, critic_update_steps=700)
    assert (returns >= 9).all()
    with np.load(workdir / "labels" / "labels.npz") as file:
        first = file["values"][:, 0]  # S with the action that leads to M
    assert ((first > 6) & (first < 9)).all()  # 7 under expectile .7


@pytest.mark.slow
def test_q_learning_dt_finds_the_shortest_way_through_the_grid(tmp_path):
    """10 datasets; the Decision Transformer of the same size beside it."""
    reached = {"grid.py": [], "qdt/grid.py": []}
    for seed in range(10):
        path = tmp_path / f"grid-{seed}.hdf5"
        collect_demo("grid-demo", path, seed=seed)
        for config_file, returns in reached.items():
            config = load_config(
                str(CONFIGS / config_file), data_path=str(path), train_seed=seed
            )
            workdir = tmp_path / f"{config.agent}-{seed}"
            train(config, workdir)
            returns.append(read_run(workdir).newest[1].returns.mean())
    dt, qdt = (np.array(returns) for returns in reached.values())
    print("Decision Transformer:", dt, "Q-learning DT:", qdt)
    assert (qdt >= 45).all()
    assert (qdt > dt).sum() >= 8


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["qt", "qcs"])
def test_a_q_regularised_transformer_joins_trajectories_and_returns_10(
    corridor, tmp_path, mode
):
    """Of qt with its candidates; one that acts by the prompt returns 1."""
    changes = {"update_steps": 2_000, "eval_every": 2_000, "mode": mode}
    file = "qt/corridor.py"
    assert (returns_of(file, corridor, tmp_path / "a", **changes) >= 9).all()
    if mode == "qt":
        returns = returns_of(
            file, corridor, tmp_path / "b", **changes, num_candidates=1
        )
        assert (returns <= 1.5).all()
