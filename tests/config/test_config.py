"""Configuration files, from the package and from users, and their JSON form."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from dt_jax.config import default_config, load_config, validate
from dt_jax.config.load import from_dict, workdir_for
from dt_jax.data.registry import all_specs
from dt_jax.utils.errors import UserError

CORL_FILE = Path(__file__).parents[1] / "data" / "corl_hyperparameters.json"
CORL = json.loads(CORL_FILE.read_text())
FIRST_DATASET = {
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


def reference(env_name):
    """Return "configs/hopper.py:medium" for "hopper-medium-v2"."""
    spec = all_specs()[env_name]
    if spec.engine == "tabular":
        return f"configs/{spec.env_id.replace('-', '_')}.py"
    family, _, rest = env_name.partition("-")
    dataset = rest if rest.endswith("demo") else rest.rpartition("-")[0]
    return f"configs/{family}.py:{dataset}"


def as_json(config):
    return json.loads(json.dumps(config.to_dict()))


# The package's files.


@pytest.mark.parametrize("env_name", CORL)
def test_a_dataset_has_corls_hyperparameters(env_name):
    config = load_config(reference(env_name))
    ours = as_json(config)
    assert {key: ours[key] for key in CORL[env_name]} == CORL[env_name]
    assert config.env_name == env_name
    assert config.name == f"dt-{env_name}"
    assert config.lr_schedule == "warmup_cosine"


def test_every_known_dataset_has_a_configuration():
    assert len(CORL) == 30
    for env_name in all_specs():
        assert load_config(reference(env_name)).env_name == env_name


@pytest.mark.parametrize("agent", ["bc", "iql", "cql", "qdt", "esper", "qt"])
def test_every_known_dataset_has_a_configuration_of_each_agent(agent):
    for env_name, spec in all_specs().items():
        if spec.engine == "tabular":
            continue
        path = reference(env_name).replace("configs/", f"configs/{agent}/")
        config = load_config(path)
        assert (config.agent, config.env_name) == (agent, env_name)
        assert config.name == f"{agent}-{env_name}"
        assert config.batch_size == 256 or agent not in ("bc", "iql")


def test_qdt_has_the_papers_hyperparameters():
    config = load_config("configs/qdt/walker2d.py:medium-replay")
    assert config.target_returns == (5000.0,)
    assert (config.batch_size, config.learning_rate) == (64, 1e-4)
    assert (config.critic_update_steps, config.critic_batch_size) == (500_000, 256)


def test_qt_has_the_papers_hyperparameters():
    """Source: charleshsc/QT's experiment.py and run.sh."""
    keys = "eta", "clip_grad", "seq_len", "update_steps"
    for path, *expected in (
        ("halfcheetah.py:medium", 5.0, 15.0, 5, 500_000),
        ("halfcheetah.py:medium-expert", 0.4, 15.0, 20, 100_000),
        ("hopper.py:medium-replay", 3.0, 9.0, 20, 500_000),
        ("walker2d.py:medium", 2.0, 5.0, 20, 500_000),
        ("antmaze.py:large-diverse", 0.005, 9.0, 20, 100_000),
        ("door.py:cloned", 0.001, 9.0, 20, 500_000),
    ):
        config = load_config(f"configs/qt/{path}")
        assert [config[key] for key in keys] == expected
        sizes = config.embedding_dim, config.num_layers, config.num_heads
        assert (*sizes, config.activation) == (256, 4, 4, "relu")
        assert (config.batch_size, config.learning_rate) == (256, 3e-4)
        assert (config.discount, config.tau, config.weight_decay) == (0.99, 0.005, 1e-4)


def test_iql_has_corls_hyperparameters():
    """Source: CORL's configs/offline/iql, with beta per unit of the data's rewards."""
    keys = "beta", "iql_tau", "tau", "iql_deterministic", "actor_dropout"
    for path, *expected in (
        ("halfcheetah.py:medium", 3, 0.7, 0.005, False, 0),
        ("hopper.py:medium-expert", 6, 0.5, 0.005, False, 0),
        ("hopper.py:medium-replay", 1, 0.7, 0.001, True, 0),
        ("antmaze.py:large-play", 1000, 0.9, 0.005, False, 0),
        ("maze2d.py:umaze", 3, 0.7, 0.005, False, 0),
        ("door.py:expert", 3, 0.8, 0.005, False, 0.1),
    ):
        config = load_config(f"configs/iql/{path}")
        assert [config[key] for key in keys] == expected


def test_bc_has_corls_adam_at_a_constant_rate():
    config = load_config("configs/bc/hopper.py", top_fraction=0.1)
    assert (config.learning_rate, config.warmup_steps) == (3e-4, 0)
    assert (config.weight_decay, config.clip_grad) == (0, None)
    assert config.lr_schedule == "warmup_constant"


@pytest.mark.parametrize("folder", ["configs", "configs/bc", "configs/iql"])
@pytest.mark.parametrize(("family", "first"), FIRST_DATASET.items())
def test_without_a_dataset_a_file_configures_its_first_one(folder, family, first):
    path = f"{folder}/{family}.py"
    assert as_json(load_config(path)) == as_json(load_config(f"{path}:{first}"))


# load_config, default_config and validate.


def test_load_config_returns_a_valid_locked_configuration():
    config = load_config(
        "configs/hopper.py:medium", seq_len=5, clip_grad=None, target_returns=[3, 1]
    )
    assert (config.env_name, config.seq_len) == ("hopper-medium-v2", 5)
    assert config.clip_grad is None
    assert config.target_returns == (3.0, 1.0)  # a tuple, whose numbers are floats
    assert isinstance(config.target_returns[0], float)
    assert config.is_locked


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"batchsize": 3}, "^unknown key 'batchsize'; nearest: batch_size"),
        ({"batch_size": "3"}, "^config.batch_size=3: expected an integer from 1"),
        ({"learning_rate": None}, "^config.learning_rate=None: expected"),
        ({"agent": "bc"}, "^agent=bc: configs/hopper.py configures the agent dt"),
        ({"env_name": "hoper-medium-v2"}, "nearest: hopper-medium-v2"),
    ],
)
def test_load_config_refuses_invalid_overrides(overrides, message):
    with pytest.raises(UserError, match=message):
        load_config("configs/hopper.py", **overrides)


def test_numpy_numbers_and_lists_are_valid_overrides():
    """As searches over hyper-parameters pass them."""
    config = load_config(
        "configs/quickstart.py",
        learning_rate=np.float64(3e-4),
        batch_size=np.int64(32),
        target_returns=[100.0, 200.0],
    )
    assert (config.learning_rate, config.batch_size) == (3e-4, 32)
    assert config.target_returns == (100.0, 200.0)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "DT"),
        ({"env_name": "hopper-demo"}, "dt-hopper-demo"),
        ({"env_name": "minari:D4RL/pen/human-v2"}, "dt-minari-D4RL-pen-human-v2"),
        ({"env_name": "hopper-demo", "name": "mine"}, "mine"),
        ({"env_name": None}, "DT"),
    ],
)
def test_a_run_is_named_after_its_agent_and_environment(changes, name):
    assert default_config(**changes).name == name


def test_keys_are_also_checked_against_each_other():
    config = default_config(embedding_dim=64, num_heads=3)
    message = "embedding_dim=64: expected a multiple of num_heads=3"
    with pytest.raises(UserError, match=message):
        validate(config)


def test_a_policy_needs_no_data():
    validate(default_config(env_name=None), trains=False)
    with pytest.raises(UserError, match="env_name=None: expected the name of a"):
        validate(default_config(env_name=None))


# Users' files.


def write_config(folder, body, signature="()"):
    """Write a config file whose get_config() changes the default."""
    path = folder / "mine.py"
    path.write_text(
        "from dt_jax.config import default_config\n"
        f"def get_config{signature}:\n"
        f"    config = default_config(); {body}; return config\n"
    )
    return path


def test_a_users_file_may_take_a_dataset(tmp_path):
    path = write_config(tmp_path, "config.batch_size = int(n)", signature="(n='3')")
    assert load_config(str(path)).batch_size == 3
    assert load_config(f"{path}:7").batch_size == 7


def test_a_users_file_takes_precedence_over_the_packages(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_config("configs/hopper.py").env_name == "hopper-medium-v2"
    path = write_config(tmp_path / "configs", "config.seq_len = 7")
    path.rename(path.with_name("hopper.py"))
    assert load_config("configs/hopper.py").seq_len == 7


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("configs/qdt/owndata.py", "configs/qdt/own_data.py"),
        ("configs/hoper.py:medium", "configs/hopper.py"),
        ("hoper.py", "configs/hopper.py"),
    ],
)
def test_a_misspelled_file_is_reported_with_the_path_of_the_nearest(
    path, nearest, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"; nearest: {nearest}"):
        load_config(path)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def get_config(): return None", "returned None, expected a ConfigDict"),
        ("def get_config(:", "SyntaxError"),
        (
            "def get_config(): return undefined",
            "line 1: NameError: name 'undefined' is",
        ),
        ("x = 1", "defines no get_config()"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_file_that_is_no_configuration_is_reported(tmp_path, source, reason):
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(UserError, match=re.escape(reason)) as caught:
        load_config(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("config.batchsize = 3", "'batchsize'; nearest: batch_size"),
        ("config.batch_size = 'x'", "batch_size"),
        ("config.clip_grad = float('nan')", "clip_grad=nan"),
        ("del config.seq_len", r"lacks the key 'seq_len': .*default_config\(\)"),
        ("config.agent = 'dtt'", "unknown agent 'dtt'; nearest: dt.*--agents=FILE.py"),
    ],
)
def test_a_mistake_in_a_users_file_is_reported(tmp_path, body, message):
    path = write_config(tmp_path, body)
    with pytest.raises(UserError, match=message):
        load_config(str(path))


def test_a_projects_own_configs_do_not_replace_the_shipped_ones(tmp_path, monkeypatch):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "default.py").write_text("def get_config(): return 3")
    (folder / "pen.py").write_text(
        "from dt_jax.config import default_config\n"
        "def get_config(): return default_config(env_name='pen-human-v1', seq_len=9)"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=r"configs/default.py does not use dt_jax: /"):
        assert load_config("configs/default.py", env_name="pen-human-v1").seq_len == 20
    assert load_config("configs/hopper.py:medium").env_name == "hopper-medium-v2"
    assert load_config("configs/pen.py").seq_len == 9
    with pytest.raises(UserError, match=r"default.py: get_config\(\) returned 3"):
        load_config(str(folder / "default.py"))


# The run's folder, and the configuration in its record.


def test_the_runs_folder_follows_from_the_configuration(tmp_path):
    config = default_config(name="a")
    assert workdir_for(config, None) == Path("runs/a").absolute()
    config.checkpoints_path = "kept"
    assert workdir_for(config, None) == Path("kept/a").absolute()
    assert workdir_for(config, "b/c") == Path("b/c").absolute()
    assert workdir_for(config, "~/c") == Path.home() / "c"
    with pytest.raises(UserError, match=r"b/\[c\]: .* must not contain \[ \]; choose"):
        workdir_for(config, "b/[c]")
    with pytest.raises(UserError, match=r"must not contain \\; choose"):
        workdir_for(config, r"b\c/d")
    (tmp_path / "link").symlink_to(tmp_path / "b*")
    with pytest.raises(UserError, match=r"link/d: .* must not contain \*; choose"):
        workdir_for(config, tmp_path / "link" / "d")
    with pytest.raises(UserError, match="is not valid UTF-8"):
        workdir_for(config, os.fsdecode(b"b\xff"))


def test_a_configuration_survives_json():
    config = load_config("configs/pen.py", clip_grad=None, target_returns=(3.0, 1.0))
    back = from_dict(as_json(config))
    assert back.to_dict() == config.to_dict()
    assert isinstance(back.betas, tuple)
    assert back.is_locked


def test_a_record_of_another_version_is_refused():
    values = default_config().to_dict()
    with pytest.raises(UserError, match=r"with unknown keys sequence: .*another"):
        from_dict(values | {"sequence": 3})
    with pytest.raises(UserError, match="unknown agent 'gone'"):
        from_dict(values | {"agent": "gone"})
    del values["seq_len"]
    with pytest.raises(UserError, match="without keys seq_len: it was written by ano"):
        from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 10**9}, "num_layers=1000000000: expected an integer from 1 to"),
        ({"episode_len": 10**8}, "episode_len=100000000: expected an integer from 1"),
        ({"seq_len": 2**31 - 1}, "seq_len=2147483647: expected an integer from 1 to"),
        ({"embedding_dim": "128"}, "embedding_dim=128: expected an integer"),
        ({"max_action": [1.0]}, "max_action=(1.0,): expected a float32 number above"),
        ({"betas": [[0.9], 0.99]}, "betas=([0.9], 0.99): expected two numbers"),
        ({"loggers": {"wandb": 1}}, "expected some of tensorboard,wandb"),
        ({"num_heads": 3}, "embedding_dim=128: expected a multiple of num_heads=3"),
        ({"agent": ["dt"]}, "names no agent"),
    ],
)
def test_a_record_with_an_invalid_value_is_refused(change, message):
    with pytest.raises(UserError, match=re.escape(message)):
        from_dict(default_config().to_dict() | change)


@pytest.mark.parametrize("values", [None, [], {}, "dt"])
def test_a_record_that_is_no_configuration_is_refused(values):
    with pytest.raises(UserError, match="names no agent"):
        from_dict(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attention_band": 8},
            "attention_band=8: expected at most 7, so that 3 layers",
        ),
        ({"attention_band": 0}, 'expected a positive integer or "fit", or None'),
        ({"attention_band": "all"}, 'expected a positive integer or "fit", or None'),
        (
            {"attention_band": "fit", "mixer": "conv"},
            'attention_band=fit: expected None with mixer="conv"',
        ),
        ({"mixer": "mean"}, "mixer=mean: expected one of attention, conv"),
    ],
)
def test_mixers_that_cannot_be_used_are_refused(changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        validate(default_config(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_band": 7},
        {"attention_band": "fit"},
        {"mixer": "conv"},
        {"mixer": "conv", "seq_len": 6},
    ],
)
def test_mixers_with_a_ring_are_valid_without_a_warning(changes, recwarn):
    validate(default_config(**changes))
    assert not recwarn.list


def test_a_convolution_beyond_the_window_is_a_warning():
    message = "depends on 16 tokens, more than the window has.*; seq_len=6 would not"
    with pytest.warns(UserWarning, match=message):
        validate(default_config(mixer="conv", seq_len=5))
