"""The command line of `train`: flags, keys, and each mistake in one line."""

import subprocess
import sys
from pathlib import Path

import pytest
from command import ROOT

from dt_jax import agents
from dt_jax.agents.base import Agent
from dt_jax.config import flags
from dt_jax.config.keys import keys_of
from dt_jax.utils.errors import UserError


class WithoutKeys(Agent):
    KEYS = ()


def parse(*arguments):
    return flags.parse(arguments)[:2]


def refusal(*arguments):
    """Return the error message of a command line, which is one line."""
    with pytest.raises(UserError) as caught:
        parse(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def launch(folder, *arguments):
    """Run launch.py from another folder; return the finished process."""
    return subprocess.run(
        [sys.executable, ROOT / "launch.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


# Values of keys.


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("--config.clip_grad=None", "clip_grad", None),
        ("--config.clip_grad=1", "clip_grad", 1.0),
        ("--config.data_path=x.hdf5", "data_path", "x.hdf5"),
        ("--config.update_steps=1e5", "update_steps", 100_000),
        ("--config.update_steps=100_000", "update_steps", 100_000),
        ("--config.target_returns=3600,1800", "target_returns", (3600.0, 1800.0)),
        ("--config.target_returns=3600", "target_returns", (3600.0,)),
        ("--config.target_returns=(3600, 1800)", "target_returns", (3600.0, 1800.0)),
        ("--config.target_returns=-5,1e3", "target_returns", (-5.0, 1000.0)),
        ("--config.betas=0.9,0.95", "betas", (0.9, 0.95)),
        ("--config.deterministic", "deterministic", True),
        ("--config.deterministic=False", "deterministic", False),
        ("--config.reward_scale=0", "reward_scale", 0.0),
        ("--config.lr_schedule=warmup_constant", "lr_schedule", "warmup_constant"),
        ("--config.reference_scores=-1200,-150", "reference_scores", (-1200.0, -150.0)),
        ("--config.loggers=tensorboard,wandb", "loggers", ("tensorboard", "wandb")),
        ('--config.loggers=("tensorboard",)', "loggers", ("tensorboard",)),
        ("--config.loggers=()", "loggers", ()),
    ],
)
def test_an_override_sets_only_its_key(argument, key, value):
    before, (after, _) = parse()[0], parse(argument)
    assert after[key] == value
    assert type(after[key]) is type(value)
    assert {k for k in keys_of("dt") if before[k] != after[k]} <= {key}


@pytest.mark.parametrize("env_name", ["None", "Pendulum-v1"])
def test_with_a_data_file_any_environment_or_none_is_accepted(env_name):
    config, _ = parse(f"--config.env_name={env_name}", "--config.data_path=x.hdf5")
    assert str(config.env_name) == env_name


def test_flags_may_come_in_any_order_and_values_as_separate_words():
    config, workdir = parse(
        "--config.batch_size", "3", "--workdir", "here", "--config", "configs/pen.py"
    )
    assert (config.batch_size, config.env_name) == (3, "pen-human-v1")
    assert config.is_locked
    assert workdir == Path("here").absolute()


def test_target_returns_may_be_empty_without_evaluation():
    config, _ = parse("--config.target_returns=()", "--config.eval_episodes=0")
    assert config.target_returns == ()


def test_the_agent_of_a_file_cannot_be_changed():
    assert parse("--config.agent=dt")[0].agent == "dt"
    message = refusal("--config=configs/pen.py", "--config.agent=bc")
    assert message == (
        "--config.agent=bc: configs/pen.py configures the agent dt; choose a config "
        "file of bc"
    )


def test_a_key_of_another_agent_names_that_agent(tmp_path, monkeypatch):
    monkeypatch.setitem(agents._REGISTERED, "mine", WithoutKeys)
    file = tmp_path / "mine.py"
    for changes in ("", ", reward_scale=1.0"):
        file.write_text(
            "from dt_jax.config import default_config\n"
            f"def get_config(): return default_config('mine'{changes})\n"
        )
        message = refusal(f"--config={file}", "--config.reward_scale=1")
        assert "; it is a key of dt, iql, cql, qdt, " in message
        assert ", not of mine" in message
        assert message.startswith(str(file)) == (changes != "")


# Other flags.


def test_dry_run_and_distributed_exclude_each_other():
    assert flags.parse(["--dry_run"]).dry_run
    assert not flags.parse([]).dry_run
    assert flags.parse(["--distributed"]).distributed
    assert not flags.parse([]).distributed
    with pytest.raises(UserError, match="leave out --distributed"):
        flags.parse(["--distributed", "--dry_run"])


def test_help_is_printed_even_after_wrong_keys(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--config.nonsense=1", "--help")
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert "configs/quickstart.py" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_example_of_the_help_is_a_valid_command(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    example = text.partition("example:\n  python launch.py ")[2].partition("\n\n")[0]
    config, workdir = parse(*example.replace("\\\n", "").split())
    assert (config.update_steps, workdir) == (
        100_000,
        Path("runs/hopper").absolute(),
    )


def test_it_runs_from_another_folder(tmp_path):
    done = launch(tmp_path, "--config=configs/pen.py:human", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--config.name=dt-pen-human-v1" in done.stdout


# Mistakes.


def test_a_mistake_ends_with_status_2_and_one_line(tmp_path):
    done = launch(tmp_path, "--config.batch_size=abc")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("launch.py: error: config.batch_size=abc: expected")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            "--config=configs/hoper.py",
            ["configs/hoper.py", "nearest: configs/hopper.py"],
        ),
        ("--config=configs/", ["no config file 'configs/'"]),
        ("--config=configs/hopper.py:medum", ["medum", "nearest: medium"]),
        ("--config=configs/hopper.py:", ["unknown dataset ''", "medium-replay"]),
        ("--config=configs/pen.py:zzz", ["zzz", "cloned, expert, human"]),
        ("--config=configs/quickstart.py:x", ["quickstart.py", "':x'"]),
        ("--config=tests/conftest.py", ["conftest.py", "get_config()"]),
        ("--config", ["Missing value for flag --config"]),
        ("--config.batchsize=3", ["--config.batchsize", "nearest: batch_size"]),
        ("--config.zzz=3", ["unknown key --config.zzz; see --help"]),
        ("--config.=3", ["--config."]),
        ("--batch_size=3", ["--batch_size", "--config.batch_size="]),
        ("--wrokdir=x", ["--wrokdir", "nearest: workdir"]),
        ("--workdir=", ["--workdir"]),
        ("--workdir --config.seq_len=3", ["--workdir lacks its value"]),
        ("runs/x", ["'runs/x'", "--flag=value"]),
        ("--config.batch_size=abc", ["batch_size=abc", "an integer from 1"]),
        ("--config.batch_size=1e400", ["batch_size=1e400", "an integer from 1"]),
        ("--config.update_steps=1.5", ["update_steps=1.5", "an integer from 1"]),
        ("--config.update_steps=1e10", ["update_steps", "to 2147483647"]),
        ("--config.residual_dropout=1", ["residual_dropout=1.0", "below 1"]),
        ("--config.num_heads=3", ["embedding_dim=64", "num_heads=3"]),
        ("--config.betas=0.9", ["betas=(0.9,)", "two numbers"]),
        ("--config.learning_rate=0", ["learning_rate=0.0", "above 0"]),
        ("--config.clip_grad=none", ["clip_grad=none", "or None"]),
        ("--config.reward_scale=nan", ["reward_scale=nan", "from 0"]),
        ("--config.target_returns=", ["target_returns=()", "eval_episodes=0"]),
        ("--config.target_returns=a,b", ["target_returns=a,b", "3600,1800"]),
        ("--config.target_returns=5,5.0", ["target_returns=(5.0, 5.0)", "different"]),
        ("--config.device=cdua", ["device=cdua", "auto, cpu, gpu, cuda, tpu"]),
        ("--config.deterministic=maybe", ["deterministic=maybe", "true or false"]),
        ("--config.name=a/b", ["name=a/b", "without a path"]),
        ("--config.env_name=hoper-medium-v2", ["nearest: hopper-medium-v2"]),
        ("--config.env_name=FrozenLake-v1", ["observations of the kind Discrete"]),
        ("--config.env_name=None", ["env_name=None", "data_path"]),
        ("--config.env_name=Pendulum-v1", ["Pendulum-v1", "needs its data"]),
        ("--config.loggers=tensorbord", ["('tensorbord',)", "tensorboard,wandb"]),
        ("--config.reference_scores=3,3", ["(3.0, 3.0)", "the first below the second"]),
    ],
)
def test_a_mistake_is_reported_in_one_line(arguments, parts):
    message = refusal(*arguments.split())
    for part in parts:
        assert part in message
