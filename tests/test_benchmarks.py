"""Every benchmark runs and prints its table; speed is not checked."""

import re

import pytest
from command import ROOT, run

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
TESTED_ELSEWHERE = {"replay.py"}  # tests/envs/test_replay.py


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
