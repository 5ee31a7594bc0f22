"""The agent of docs/extending.md works everywhere, without a change in dt_jax."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import run

from dt_jax.runs.metrics import read_metrics

ROOT = Path(__file__).parents[1]
TRAIN = ["--config.update_steps=400", "--config.eval_every=200"]
TRAIN += ["--config.eval_episodes=2", "--config.warmup_steps=10"]
TRAIN += ["--config.log_every=20", "--config.checkpoint_every=20"]
TRAIN += ["--config.num_seeds=2", "--config.episode_len=50"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of the user's, with the page's agent in bc.py."""
    folder = tmp_path_factory.mktemp("user")
    page = (ROOT / "docs" / "extending.md").read_text()
    (code,) = re.findall(r"```python\n(\"\"\"Behaviour cloning.*?)```", page, re.S)
    assert code.count("\n") <= 70
    (folder / "bc.py").write_text(code)
    return folder


@pytest.fixture(scope="module")
def trained(folder, hopper_file):
    config, data = f"--config={folder / 'bc.py'}", f"--config.data_path={hopper_file}"
    workdir = folder / "run"
    command = ["launch.py", config, data, *TRAIN, f"--workdir={workdir}"]
    status, out, err = run(*command)
    assert status == 0, err
    assert "after 400 updates" in " ".join(out.split())
    return workdir


def test_it_is_trained_evaluated_and_aggregated_over_two_seeds(trained):
    first, second, *_, last = read_metrics(trained / "metrics.jsonl")
    assert last["step"] == 400
    assert last["train_loss"] < 0.5 * second["train_loss"]
    for name in ("train_loss", "eval/return_mean", "eval/normalized_score_mean"):
        seeds = [last[f"seed_{seed}/{name}"] for seed in (10, 11)]
        assert last[name] == pytest.approx(np.mean(seeds))
        assert seeds[0] != seeds[1]
    assert "eval/return_mean/iqm" in first


def test_a_copy_of_the_folder_is_all_that_a_policy_needs(folder, trained):
    copy = folder / "copy"
    shutil.copytree(trained, copy)
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "import bc, dt_jax\n"
        f"policy = dt_jax.Policy.load({str(copy)!r}, 'best', seed=11)\n"
        "policy.reset()\n"
        "print(policy.act([0.1] * 11).shape)\n"
    )
    status, out, err = run("-c", code)
    assert (status, out) == (0, "(3,)\n"), err


def test_it_is_evaluated(folder, trained):
    agents = f"--agents={folder / 'bc.py'}"
    status, out, err = run("-m", "dt_jax", "evaluate", trained, "--episodes=2", agents)
    assert status == 0, err
    assert "return" in out


def test_the_report_shows_it(folder, trained):
    out = folder / "report"
    agents = f"--agents={folder / 'bc.py'}"
    status, _, err = run("-m", "dt_jax", "report", trained, f"--out={out}", agents)
    assert status == 0, err
    page = (out / "index.html").read_text()
    assert "2 seeds" in page
    assert "nan" not in (out / "report.md").read_text()
