"""The agent of docs/extending.md works everywhere, without a change in dt_jax."""

import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from command import run, start

from dt_jax import agents
from dt_jax.cli.evaluate import main as evaluate
from dt_jax.utils.errors import UserError

ROOT = Path(__file__).parents[1]
TRAIN = ["--config.update_steps=200", "--config.eval_every=200"]
TRAIN += ["--config.eval_episodes=2", "--config.warmup_steps=10"]
TRAIN += ["--config.log_every=20", "--config.checkpoint_every=20"]
TRAIN += ["--config.num_seeds=2", "--config.episode_len=50"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of the user's, with the page's agent in my_bc.py."""
    folder = tmp_path_factory.mktemp("user")
    page = (ROOT / "docs" / "extending.md").read_text()
    (code,) = re.findall(r"```python\n(\"\"\"Behaviour cloning.*?)```", page, re.S)
    assert code.count("\n") <= 70
    (folder / "my_bc.py").write_text(code)
    return folder


@pytest.fixture(scope="module")
def command(folder, hopper_file):
    """The command that trains it, but for --workdir."""
    config = f"--config={folder / 'my_bc.py'}"
    return ["launch.py", config, f"--config.data_path={hopper_file}", *TRAIN]


@pytest.fixture(scope="module")
def trained(folder, command):
    workdir = folder / "run"
    status, out, err = run(*command, f"--workdir={workdir}")
    assert status == 0, err
    assert "after 200 updates" in " ".join(out.split())
    return workdir


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    timed = {"steps_per_second", "eval/seconds"}
    return [
        {k: v for k, v in json.loads(line).items() if k not in timed} for line in lines
    ]


def test_it_is_trained_evaluated_and_aggregated_over_two_seeds(trained):
    first, *_, last = rows(trained)
    assert last["step"] == 200
    assert last["train_loss"] < 0.5 * rows(trained)[1]["train_loss"]
    for name in ("train_loss", "eval/return_mean", "eval/normalized_score_mean"):
        seeds = [last[f"seed_{seed}/{name}"] for seed in (10, 11)]
        assert last[name] == pytest.approx(np.mean(seeds))
        assert seeds[0] != seeds[1]
    assert "eval/return_mean/iqm" in first


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(folder, command, trained):
    workdir = folder / "killed"
    process = start(*command, f"--workdir={workdir}")
    while not (workdir / "checkpoints" / "60.json").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    status, out, err = run(*command, f"--workdir={workdir}")
    assert status == 0, err
    assert "resuming from the checkpoint at step" in out
    assert rows(workdir) == rows(trained)


@pytest.mark.parametrize("way", ["by import", "by --agents"])
def test_a_fresh_process_acts_with_it(folder, trained, way):
    """The run's folder, or a copy of it, is all that a policy needs."""
    if way == "by import":
        copy = shutil.copytree(trained, folder / "copy")
        code = (
            f"import sys; sys.path.insert(0, {str(folder)!r})\n"
            "import my_bc, dt_jax\n"
            f"dt_jax.Policy.load({str(copy)!r}, 'best')\n"
            f"policy = dt_jax.Policy.load({str(copy)!r}, seed=11)\n"
            "policy.reset()\n"
            "print(policy.act([0.1] * 11).shape)\n"
        )
        status, out, err = run("-c", code)
        assert out == "(3,)\n", err
    else:
        agents = f"--agents={folder / 'my_bc.py'}"
        status, out, err = run(
            "-m", "dt_jax", "evaluate", trained, "--episodes=2", agents
        )
        assert "return" in out
    assert status == 0, err


def test_the_report_shows_it(folder, trained):
    out = folder / "report"
    agents = f"--agents={folder / 'my_bc.py'}"
    status, _, err = run("-m", "dt_jax", "report", trained, f"--out={out}", agents)
    assert status == 0, err
    page = (out / "index.html").read_text()
    assert "2 seeds" in page
    assert "nan" not in (out / "report.md").read_text()


def test_without_its_registration_there_is_one_line(trained, monkeypatch):
    monkeypatch.setattr(agents, "_REGISTERED", {})  # other tests run the page's code
    message = "unknown agent 'my_bc'; known: bc, cluster_return, cql, dt"
    with pytest.raises(UserError, match=message) as error:
        evaluate([str(trained), "--episodes=2"])
    assert "\n" not in str(error.value)
    assert "--agents=FILE.py" in str(error.value)


def test_another_agents_config_is_refused(folder, command):
    status, _, err = run(*command, "--config.agent=dt", "--workdir=unused")
    assert status == 2
    assert "configures the agent my_bc" in err
