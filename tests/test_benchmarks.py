"""Every benchmark runs and prints its table; speed is not checked."""

import re

import pytest
from command import ROOT, run

from dt_jax.config import default_config
from dt_jax.datasets.demo import collect_demo
from dt_jax.training.train import train

SHORT = {
    "agents.py": "--sizes=laptop --work=act --rounds=1 --seconds=0.1",
    "bounds.py": "--top=3",
    "data.py": "--batch_sizes=4 --rounds=1 --seconds=0.1",
    "environments.py": "--families=hopper --episodes=2",
    "fast_paths.py": "--work=B4,N2 --rounds=1 --seconds=0.1",
    "large_data.py": "--gigabytes=0.01 --seconds=0.2 --folder={folder}",
    "load.py": "",
    "precision.py": "{data} --updates=20 --batch_size=4",
    "rollout.py": "--episodes=2 --rounds=1",
    "seeds.py": "--seeds=1,2 --batch_size=4 --rounds=1 --seconds=0.1",
    "stepping.py": "",
    "train_step.py": "--batch_sizes=4 --rounds=1 --seconds=0.1",
}
LONG = {"algorithms.py", "return_conditioning.py", "scaling.py"}  # minutes to hours
TESTED_ELSEWHERE = {"replay.py", "critic_values.py"}  # tests/envs/, and below


def test_every_benchmark_is_listed():
    files = (ROOT / "benchmarks").glob("*.py")
    programs = {file.name for file in files if "__main__" in file.read_text()}
    assert programs == {*SHORT} | LONG | TESTED_ELSEWHERE


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_benchmark_prints_a_table(name, hopper_file, tmp_path):
    words = SHORT[name].format(folder=tmp_path, data=hopper_file).split()
    status, out, err = run(ROOT / "benchmarks" / name, *words)
    assert status == 0, err
    assert re.search(r"\d", "".join(out.splitlines()[-3:]))  # its last row


@pytest.mark.slow
def test_critic_values_compares_q_with_the_returns_that_followed(tmp_path):
    """In the corridor 0, 0, 1, 9.9 and 10 did; Q is 7 where the next step decides."""
    data, workdir, picture = (tmp_path / x for x in ("corridor.hdf5", "iql", "q.png"))
    collect_demo("corridor-demo", data)
    config = default_config(
        "iql",
        env_name="corridor-demo",
        data_path=str(data),
        episode_len=None,
        update_steps=2_000,
        eval_episodes=0,
        holdout_fraction=0.1,
        steps_per_dispatch=100,
    )
    train(config, workdir)
    status, out, err = run(
        ROOT / "benchmarks" / "critic_values.py", str(workdir), f"--out={picture}"
    )
    assert status == 0, err
    steps, kind, q, returns, correlation = re.search(
        r"([\d,]+) (held out) *│ *([\d.]+) *│ *([\d.]+) *│ *([\d.]+)", out
    ).groups()
    assert kind == "held out"
    assert 100 < int(steps) < 200
    assert float(returns) == pytest.approx((0 + 0 + 1 + 9.9 + 10) / 5, abs=0.5)
    assert float(q) == pytest.approx((7 + 0 + 1 + 7 + 10) / 5, abs=0.5)
    assert float(correlation) > 0.5
    assert picture.stat().st_size > 1_000
