"""Each key is declared once; flags, help and validation follow from that."""

import json
from pathlib import Path

import pytest
from command import run

from dt_jax import agents
from dt_jax.config import default_config, load_config
from dt_jax.config.keys import keys_of, sections_of
from dt_jax.utils.errors import UserError

KEYS = keys_of("dt")
CORL_FILE = Path(__file__).parents[1] / "data" / "corl_hyperparameters.json"


@pytest.fixture(scope="module")
def shown():
    """Return what --help prints for each key of a config file: value and comment."""
    status, out, err = run("launch.py", "--config=configs/hopper.py:medium", "--help")
    assert status == 0, err
    entries = out.partition("Keys of ")[2].split("  --config.")[1:]
    values, comments = {}, {}
    for entry in entries:
        name, _, rest = entry.partition("=")
        values[name], _, comment = rest.partition("\n")
        comments[name] = " ".join(comment.split())
    return values, comments


@pytest.mark.parametrize("name", KEYS)
def test_every_key_is_declared_with_comment_check_and_help(shown, name):
    key, config = KEYS[name], load_config("configs/hopper.py:medium")
    values, comments = shown
    assert key.comment.endswith(".")
    assert key.check.accepts(key.default)
    assert default_config()[name] == key.default
    assert key.parse(values[name]) == config[name]
    assert comments[name].startswith(f"{key.comment} Default: ")
    assert key.check.expected in comments[name]


def test_help_lists_every_key_once_in_order(shown):
    assert list(shown[0]) == list(KEYS)


def test_no_key_is_declared_twice():
    names = [key.name for keys in sections_of("dt").values() for key in keys]
    assert len(names) == len(set(names)) == len(KEYS)


def test_the_names_that_corl_has_are_marked():
    """Those of its published hyper-parameters, and options that no result depends on.

    Source: TrainConfig in CORL's algorithms/offline/dt.py. Its deterministic_torch is
    `deterministic` here.
    """
    published = json.loads(CORL_FILE.read_text())
    labels = {"project", "group", "name", "checkpoints_path"}
    others = labels | {"env_name", "num_workers", "device"}
    expected = {name for values in published.values() for name in values} | others
    assert {name for name, key in KEYS.items() if key.corl} == expected


def test_the_defaults_are_corls():
    published = json.loads(CORL_FILE.read_text())["halfcheetah-medium-v2"]
    # Defaults of TrainConfig that its file for this dataset changes.
    published |= {"batch_size": 64, "learning_rate": 1e-4, "eval_every": 10_000}
    ours = json.loads(json.dumps(default_config().to_dict()))
    assert {name: ours[name] for name in published} == published


def test_only_keys_with_a_value_from_the_data_may_be_none_there():
    """And the check of each accepts None."""
    from_data = {name for name, key in KEYS.items() if key.from_data}
    assert from_data == {
        "episode_len",
        "max_action",
        "holdout_fraction",
        "reward_scale",
        "target_returns",
    }
    assert all(KEYS[name].check.accepts(None) for name in from_data)


def test_what_determines_the_architecture_may_not_change_on_resume():
    for key in KEYS.values():
        assert not (key.architecture and key.resumable), key.name


@pytest.mark.parametrize("use", [keys_of, default_config, agents.agent_class])
def test_an_unknown_agent_is_reported_in_one_line(use):
    message = r"^unknown agent 'dtt'; nearest: dt, qdt\. Import .*--agents=FILE.py$"
    with pytest.raises(UserError, match=message):
        use("dtt")


@pytest.mark.parametrize("name", ["episode_len", "eval_episodes"])
def test_sizes_that_no_machine_holds_are_refused(name):
    with pytest.raises(UserError, match=rf"config\.{name}=2147483647: expected an int"):
        keys_of("dt")[name].parse("2147483647")
