"""The configurations against CORL's, the command line, and each mistake's one line."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from dt_jax.cli.common import run_command
from dt_jax.config import flags
from dt_jax.config import load as config_module
from dt_jax.config.load import (
    ADDED,
    RULES,
    from_json,
    prepare_backend,
    to_json,
    workdir_for,
)
from dt_jax.data.registry import all_specs
from dt_jax.utils.errors import UserError

ROOT = Path(__file__).parents[2]
CORL = json.loads((ROOT / "tests/data/corl_hyperparameters.json").read_text())
FAMILIES = {
    "halfcheetah": "medium",
    "hopper": "medium",
    "walker2d": "medium",
    "maze2d": "umaze",
    "antmaze": "umaze",
    "pen": "human",
    "door": "human",
    "hammer": "human",
    "relocate": "human",
}


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    """Find `configs` as launch.py does: its own folder is the first on the path."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)


def parse(*arguments):
    return flags.parse(arguments)[:2]


def refusal(*arguments):
    """Return the error line of a command line, its words as they are printed."""
    with pytest.raises(UserError) as caught:
        parse(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def reference(env_name):
    """Return "configs/hopper.py:medium" for "hopper-medium-v2"."""
    family, _, rest = env_name.partition("-")
    dataset = rest if rest.endswith("demo") else rest.rpartition("-")[0]
    return f"configs/{family}.py:{dataset}"


def run_launcher(folder, *arguments):
    """Run a program like launch.py from `folder`; return its process."""
    program = (
        "import sys; from dt_jax.cli.common import run_command"
        "\nfrom dt_jax.config import load as config, flags"
        "\ndef main(): c, w, *_ = flags.parse(sys.argv[1:]);"
        " config.prepare_backend(c); print(w)"
        "\nrun_command(main, 'launch.py')"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


# The files in configs/.


@pytest.mark.parametrize("env_name", CORL)
def test_a_dataset_has_the_hyper_parameters_of_corl(env_name):
    config, _ = parse(f"--config={reference(env_name)}")
    ours = json.loads(to_json(config))
    assert {key: ours[key] for key in CORL[env_name]} == CORL[env_name]
    assert config.env_name == env_name
    assert config.name == f"dt-{env_name}"
    assert config.lr_schedule == "warmup_cosine"


def test_a_dry_run_is_asked_for():
    assert flags.parse(["--dry_run"]).dry_run
    assert not flags.parse([]).dry_run
    assert flags.parse(["--distributed"]).distributed
    assert not flags.parse([]).distributed
    with pytest.raises(UserError, match="leave out --distributed"):
        flags.parse(["--distributed", "--dry_run"])


def test_every_known_dataset_has_its_configuration():
    assert len(CORL) == 30
    for env_name in all_specs():
        assert parse(f"--config={reference(env_name)}")[0].env_name == env_name


@pytest.mark.parametrize(("family", "first"), FAMILIES.items())
def test_without_a_dataset_the_familys_first_is_taken(family, first):
    path = f"configs/{family}.py"
    assert to_json(parse(f"--config={path}")[0]) == to_json(
        parse(f"--config={path}:{first}")[0]
    )


def test_every_key_of_default_has_a_comment_and_a_rule():
    source = (ROOT / "configs/default.py").read_text()
    lines = source.splitlines()
    keys = []
    for node in ast.walk(ast.parse(source)):
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Attribute):
            keys.append(target.attr)
            above = lines[node.lineno - 2].strip()
            commented = "  # " in lines[node.lineno - 1] or above.startswith("#")
            assert commented, target.attr
    assert keys == list(RULES) == list(dict.fromkeys(keys))
    assert sorted(keys) == sorted(parse()[0])


def test_the_first_values_are_corls():
    config, _ = parse("--config=configs/default.py")
    first = CORL["halfcheetah-medium-v2"] | {
        "batch_size": 64,
        "learning_rate": 1e-4,
        "eval_every": 10_000,
    }
    ours = json.loads(to_json(config))
    assert {key: ours[key] for key in first} == first


# What the command line sets.


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
        ("--config.target_returns=(3600,)", "target_returns", (3600.0,)),
        ("--config.target_returns=-5,1e3", "target_returns", (-5.0, 1000.0)),
        ("--config.betas=0.9,0.95", "betas", (0.9, 0.95)),
        ("--config.deterministic", "deterministic", True),
        ("--config.deterministic=true", "deterministic", True),
        ("--config.deterministic=False", "deterministic", False),
        ("--config.reward_scale=0", "reward_scale", 0.0),
        ("--config.lr_schedule=warmup_constant", "lr_schedule", "warmup_constant"),
        ("--config.checkpoints_path=None", "checkpoints_path", None),
        ("--config.env_backend=gym", "env_backend", "gym"),
        ("--config.reference_scores=-1200,-150", "reference_scores", (-1200.0, -150.0)),
        ("--config.reference_scores=None", "reference_scores", None),
        ("--config.loggers=wandb", "loggers", ("wandb",)),
        ("--config.loggers=tensorboard,wandb", "loggers", ("tensorboard", "wandb")),
        ('--config.loggers=("tensorboard",)', "loggers", ("tensorboard",)),
        ("--config.loggers=()", "loggers", ()),
    ],
)
def test_an_override_sets_its_key_alone(argument, key, value):
    before, (after, _) = parse()[0], parse(argument)
    assert after[key] == value
    assert type(after[key]) is type(value)
    assert {k for k in RULES if before[k] != after[k]} <= {key}


def test_env_name_may_be_none_beside_a_file():
    config, _ = parse("--config.env_name=None", "--config.data_path=x.hdf5")
    assert config.env_name is None


def test_env_name_may_be_any_environment_beside_a_file():
    config, _ = parse("--config.env_name=Pendulum-v1", "--config.data_path=x.hdf5")
    assert config.env_name == "Pendulum-v1"


def test_the_order_of_the_flags_and_the_space_for_a_value_do_not_matter():
    config, workdir = parse(
        "--config.batch_size", "3", "--workdir", "here", "--config", "configs/pen.py"
    )
    assert (config.batch_size, config.env_name) == (3, "pen-human-v1")
    assert workdir == Path("here")


def test_of_a_repeated_flag_the_last_counts():
    assert parse("--config.seq_len=3", "--config.seq_len=5")[0].seq_len == 5


def test_targets_may_be_empty_without_evaluation():
    config, _ = parse("--config.target_returns=()", "--config.eval_episodes=0")
    assert config.target_returns == ()


def test_the_configuration_is_locked():
    config, _ = parse()
    with pytest.raises(AttributeError, match="batch_size"):
        config.batchsize = 3


def test_the_runs_folder():
    config, workdir = parse("--config.name=a")
    assert workdir == Path("runs/a")
    config.checkpoints_path = "kept"
    assert workdir_for(config, None) == Path("kept/a")
    assert workdir_for(config, "b/c") == Path("b/c")
    with pytest.raises(UserError, match=r"^b/\[c\]: a run's folder may have no \[ \]"):
        workdir_for(config, "b/[c]")
    with pytest.raises(UserError, match="is no path in UTF-8"):
        workdir_for(config, os.fsdecode(b"b\xff"))


def test_help_explains_itself(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--config.nonsense=1", "--help")
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert "example:\n  python launch.py" in text
    assert "configs/default.py" in text
    assert "default: configs/quickstart.py" in text
    assert text.count("\n") < 40
    assert max(map(len, text.splitlines())) <= 80
    example = text.partition("example:\n  python launch.py ")[2]
    config, workdir = parse(*example.replace("\\\n", "").split())
    assert (config.update_steps, workdir) == (100_000, Path("runs/hopper"))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def get_config(): return None", "returns no ConfigDict, but None"),
        ("def get_config(:", "SyntaxError"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("def get_config(): return undefined", "name 'undefined' is not defined"),
        ("x = 1", "defines no get_config()"),
    ],
)
def test_a_file_of_ones_own_that_is_wrong(tmp_path, source, told):
    path = tmp_path / "mine.py"
    path.write_text(source)
    line = refusal(f"--config={path}")
    assert str(path) in line
    assert told in line


def test_a_file_of_ones_own_starts_from_the_default(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from configs import default\n"
        "def get_config(size='3'):\n"
        "    config = default_config()\n"
        "    config.batch_size = int(size)\n"
        "    return config\n"
    )
    assert parse(f"--config={tmp_path}/mine.py")[0].batch_size == 3
    assert parse(f"--config={tmp_path}/mine.py:7")[0].batch_size == 7


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--config=configs/hoper.py", ["configs/hoper.py", "nearest: hopper.py"]),
        ("--config=hopper:medium", ["'hopper'", "nearest: hopper.py"]),
        ("--config=configs/", ["configs/", "hopper.py"]),
        ("--config=configs/hopper.py:medum", ["medum", "nearest: medium"]),
        ("--config=configs/hopper.py:", ["unknown dataset ''", "medium-replay"]),
        ("--config=configs/pen.py:zzz", ["zzz", "human, cloned, expert"]),
        ("--config=configs/quickstart.py:x", ["quickstart.py", "':x'"]),
        ("--config=tests/conftest.py", ["conftest.py", "get_config()"]),
        ("--config", ["Missing value for flag --config"]),
        ("--config.batchsize=3", ["--config.batchsize", "nearest: batch_size"]),
        ("--config.batch-size=3", ["--config.batch-size", "nearest: batch_size"]),
        ("--config.deterministic_torch=1", ["nearest: deterministic"]),
        ("--config.zzz=3", ["--config.zzz", " known: ", "activation"]),
        ("--config.=3", ["--config."]),
        ("--batch_size=3", ["--batch_size", "--config.batch_size="]),
        ("--wrokdir=x", ["--wrokdir", "nearest: workdir"]),
        ("--workdir=", ["--workdir"]),
        ("--workdir --config.seq_len=3", ["--workdir lacks its value"]),
        ("runs/x", ["'runs/x'", "--flag=value"]),
        ("--config.batch_size=abc", ["batch_size=abc", "an integer from 1"]),
        ("--config.batch_size=0", ["batch_size=0", "an integer from 1"]),
        ("--config.batch_size=None", ["batch_size=None", "an integer from 1"]),
        ("--config.batch_size=1e400", ["batch_size=1e400", "an integer from 1"]),
        ("--config.update_steps=1.5", ["update_steps=1.5", "an integer from 1"]),
        ("--config.update_steps=1e10", ["update_steps", "to 2147483647"]),
        ("--config.train_seed=-1", ["train_seed=-1", "an integer from 0"]),
        ("--config.num_workers=-1", ["num_workers=-1", "an integer from 0"]),
        ("--config.eval_every=0", ["eval_every=0", "an integer from 1"]),
        ("--config.residual_dropout=1", ["residual_dropout=1.0", "below 1"]),
        ("--config.num_heads=3", ["embedding_dim=64", "num_heads=3"]),
        ("--config.betas=0.9", ["betas=(0.9,)", "two numbers"]),
        ("--config.betas=0.9,1", ["betas=(0.9, 1.0)", "below 1"]),
        ("--config.learning_rate=0", ["learning_rate=0.0", "above 0"]),
        ("--config.learning_rate=inf", ["learning_rate=inf", "above 0"]),
        ("--config.clip_grad=0", ["clip_grad=0.0", "above 0, or None"]),
        ("--config.clip_grad=none", ["clip_grad=none", "or None"]),
        ("--config.reward_scale=nan", ["reward_scale=nan", "from 0"]),
        ("--config.target_returns=", ["target_returns=()", "eval_episodes=0"]),
        ("--config.target_returns=a,b", ["target_returns=a,b", "3600,1800"]),
        ("--config.target_returns=1,nan", ["target_returns=(1.0, nan)", "finite"]),
        ("--config.target_returns=5,5.0", ["target_returns=(5.0, 5.0)", "different"]),
        ("--config.lr_schedule=cosine", ["lr_schedule=cosine", "warmup_cosine"]),
        ("--config.device=cdua", ["device=cdua", "auto, cpu, gpu, cuda, tpu"]),
        ("--config.deterministic=maybe", ["deterministic=maybe", "true or false"]),
        ("--config.name=a/b", ["name=a/b", "without a path"]),
        ("--config.name=", ["name=", "name of a folder"]),
        ("--config.env_name=hoper-medium-v2", ["nearest: hopper-medium-v2"]),
        ("--config.env_name=None", ["env_name=None", "data_path"]),
        ("--config.env_name=Pendulum-v1", ["Pendulum-v1", "needs its data"]),
        ("--config.env_backend=d4rl", ["env_backend=d4rl", "one of auto, gym"]),
        ("--config.loggers=tensorbord", ["('tensorbord',)", "tensorboard,wandb"]),
        ("--config.loggers=wandb,wandb", ["some of tensorboard,wandb, each once"]),
        ("--config.reference_scores=3", ["reference_scores=(3.0,)", "two finite"]),
        ("--config.reference_scores=3,3", ["(3.0, 3.0)", "the first below the second"]),
        ("--config.reference_scores=0,inf", ["(0.0, inf)", "two finite numbers"]),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, words):
    message = refusal(*arguments.split())
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("config.batchsize = 3", ["'batchsize'", "nearest: batch_size"]),
        ("config.batch_size = 'x'", ["batch_size"]),
        ("config.clip_grad = float('nan')", ["clip_grad=nan"]),
        ("del config.seq_len", ["lacks the key 'seq_len'"]),
    ],
)
def test_a_mistake_in_a_file_of_ones_own(tmp_path, line, words):
    (tmp_path / "mine.py").write_text(
        "from configs import default\n"
        f"def get_config():\n  config = default_config(); {line}; return config\n"
    )
    message = refusal(f"--config={tmp_path}/mine.py")
    for word in words:
        assert word in message


def test_a_mistake_ends_with_status_2(tmp_path):
    done = run_launcher(tmp_path, "--config.batch_size=abc")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "batch_size=abc" in done.stderr


def test_the_program_runs_from_another_folder(tmp_path):
    done = run_launcher(
        tmp_path, f"--config={ROOT}/configs/hopper.py:medium", "--config.device=cpu"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "runs/dt-hopper-medium-v2\n"


# config.json.


def test_a_configuration_older_than_a_key_is_read():
    config, _ = parse()
    values = json.loads(to_json(config))
    assert ADDED.keys() <= values.keys()
    for key, before in ADDED.items():
        assert RULES[key].holds(before)
        del values[key]
        assert from_json(json.dumps(values))[key] == before
    del values["seq_len"]
    with pytest.raises(UserError, match="without seq_len: it was written by another"):
        from_json(json.dumps(values))


def test_json_gives_the_configuration_back():
    config, _ = parse("--config.clip_grad=None", "--config.target_returns=3,1")
    back = from_json(to_json(config))
    assert back.to_dict() == config.to_dict()
    assert back.target_returns == (3.0, 1.0)
    assert isinstance(back.betas, tuple)
    assert back.is_locked


# The back end. JAX's own is running already, so its settings are only watched.


@pytest.fixture
def settings(monkeypatch):
    """Return what prepare_backend sets; the machine pretends to have a GPU alone."""
    seen = {}
    monkeypatch.setattr(jax.config, "update", seen.__setitem__)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_max_hlo_modules=7")
    return seen


@pytest.mark.parametrize(
    ("device", "platforms"),
    [("auto", None), ("gpu", "cuda,cpu"), ("cuda", "cuda,cpu")],
)
def test_the_device_is_chosen(settings, device, platforms):
    prepare_backend(parse(f"--config.device={device}")[0])
    assert settings.get("jax_platforms") == platforms
    assert os.environ["XLA_FLAGS"] == "--xla_dump_max_hlo_modules=7"


def test_deterministic_adds_to_the_flags_of_xla(settings):
    prepare_backend(parse("--config.deterministic")[0])
    assert os.environ["XLA_FLAGS"] == (
        "--xla_dump_max_hlo_modules=7 --xla_gpu_deterministic_ops=true"
    )


def test_a_device_that_is_not_there_is_told(settings):
    with pytest.raises(UserError, match=r"device=tpu.*requirements-cuda.txt"):
        prepare_backend(parse("--config.device=tpu")[0])


def test_a_back_end_that_does_not_start_is_told_in_one_line(
    settings, monkeypatch, capsys
):
    def fail():
        raise RuntimeError("no\nTPU")

    monkeypatch.setattr(config_module.jax, "default_backend", fail)
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: prepare_backend(parse()[0]), "test")
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "no TPU" in error
    assert error.count("\n") == 1
