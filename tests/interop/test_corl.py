"""Import from and export to CORL, compared with its network in PyTorch."""

import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import yaml
from ml_collections import ConfigDict
from random_run import (
    EPISODE,
    STEPS,
    A,
    S,
    T,
    docs_example,
    episode_inputs,
    export_run,
    import_run,
    make_normalizer,
    play,
    write_random_run,
)

from dt_jax.evaluation.policy import Policy
from dt_jax.interop.corl import read_config
from dt_jax.utils.errors import UserError

torch = pytest.importorskip("torch")
from benchmarks import torch_dt  # noqa: E402


class Network(torch_dt.DecisionTransformer):
    """CORL's network, tested against its numbers; with the buffers that CORL's has."""

    def __init__(self, config):
        super().__init__(ConfigDict(config), S, A)
        length = 3 * config["seq_len"]
        for block in self.blocks:
            mask = ~torch.tril(torch.ones(length, length)).to(bool)
            block.register_buffer("causal_mask", mask)


def act_in_pytorch(model, normalizer):
    """Return the actions [STEPS, N, A] of CORL's network in `episode`."""
    states, actions, returns, times = episode_inputs(normalizer)

    def window(array, t):
        return torch.tensor(np.moveaxis(array[max(t - T + 1, 0) : t + 1], 0, 1))

    for t in range(STEPS):
        inputs = (window(array, t) for array in (states, actions, returns, times))
        with torch.no_grad():
            actions[t] = model(*inputs)[:, -1].numpy()
    return actions


def load_in_pytorch(folder):
    """Return the network of an export, its normaliser, file and configuration."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    saved = torch.load(folder / "dt_checkpoint.pt", weights_only=False)
    model = Network(config).eval()
    model.load_state_dict(saved["model_state"], strict=True)
    assert saved["state_mean"].shape == saved["state_std"].shape == (1, S)
    return model, saved, config


def act_as_exported(folder):
    """Return the actions of CORL's network with everything that an export has."""
    model, saved, config = load_in_pytorch(folder)
    normalizer = make_normalizer(reward_scale=config["reward_scale"])
    for key in ("state_mean", "state_std"):
        np.testing.assert_array_equal(saved[key][0], getattr(normalizer, key))
    return act_in_pytorch(model, normalizer)


@pytest.fixture
def corl(tmp_path):
    """A folder as CORL writes it, random parameters, and its network's actions."""
    config = {
        "num_heads": 3,
        "num_layers": 2,
        "embedding_dim": 12,
        "seq_len": T,
        "episode_len": EPISODE,
        "max_action": 1.5,
        "attention_dropout": 0.1,
        "residual_dropout": 0.2,
        "embedding_dropout": 0.3,
        "reward_scale": 0.5,
        "env_name": "hopper-medium-v2",
        "target_returns": [3600.0, 1800.0],
        "betas": [0.9, 0.99],
        "clip_grad": None,
        "checkpoints_path": "/theirs",
        "deterministic_torch": True,
        "device": "cuda",
    }
    model = Network(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=generator)
    normalizer = make_normalizer()
    folder = tmp_path / "corl"
    folder.mkdir()
    saved = {
        "model_state": model.state_dict(),
        "state_mean": normalizer.state_mean[None],
        "state_std": normalizer.state_std[None],
    }
    torch.save(saved, folder / "dt_checkpoint.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder, act_in_pytorch(model, normalizer)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("max_action", [1.0, 1.5])
def test_exported_run_acts_the_same_in_corl(tmp_path, capsys, heads, max_action):
    run, out = tmp_path / "run", tmp_path / "corl"
    write_random_run(run, num_heads=heads, max_action=max_action)
    export_run(run, "corl", out)
    assert capsys.readouterr().out == f"{out}: {run} after 7 updates, for corl\n"
    ours = play(Policy.load(run))
    assert ours.std() > 0.1
    np.testing.assert_allclose(act_as_exported(out), ours, atol=1e-5)


def test_example_of_the_docs_loads_an_export(tmp_path, monkeypatch):
    """With CORL's names for everything that it imports."""
    write_random_run(tmp_path / "run", num_heads=3)
    export_run(tmp_path / "run", "corl", tmp_path / "hopper-corl")
    monkeypatch.chdir(tmp_path)
    rest = ("attention_dropout", "residual_dropout", "embedding_dropout")

    def network(state_dim, action_dim, **config):
        return Network(config | dict.fromkeys(rest, 0.0))

    names = {"yaml": yaml, "torch": torch, "Path": Path, "DecisionTransformer": network}
    exec(docs_example("load_state_dict"), names)
    theirs = act_in_pytorch(names["model"], make_normalizer())
    ours = play(Policy.load(tmp_path / "run"))
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_max_action_has_the_units_of_actions(tmp_path, capsys):
    """CORL passes the network's actions to the environment unchanged."""
    run, out = tmp_path / "run", tmp_path / "corl"
    write_random_run(run, normalizer=make_normalizer(scale=4.0), max_action=0.5)
    export_run(run, "corl", out)
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert load_in_pytorch(out)[2]["max_action"] == 2
    ours = play(Policy.load(run))
    np.testing.assert_allclose(act_as_exported(out), ours, atol=1e-5)


def test_config_yaml_has_only_keys_of_corl(tmp_path):
    """pyrallis refuses keys that TrainConfig lacks."""
    write_random_run(tmp_path / "run", clip_grad=None)
    export_run(tmp_path / "run", "corl", tmp_path / "corl")
    values = yaml.safe_load((tmp_path / "corl/config.yaml").read_text())
    assert values["clip_grad"] is None
    assert values["target_returns"] == [12000.0, 6000.0]
    assert values["deterministic_torch"] is False
    assert values["env_name"] == "hopper-demo"
    assert values.keys() == {
        *("project", "group", "name", "embedding_dim", "num_layers", "num_heads"),
        *("seq_len", "episode_len", "attention_dropout", "residual_dropout"),
        *("embedding_dropout", "max_action", "env_name", "learning_rate", "betas"),
        *("weight_decay", "clip_grad", "batch_size", "update_steps", "warmup_steps"),
        *("reward_scale", "num_workers", "target_returns", "eval_episodes"),
        *("eval_every", "deterministic_torch", "train_seed", "eval_seed"),
    }


def test_export_suits_the_old_libraries_that_corl_requires(tmp_path):
    """NumPy 1 has a module under another name; PyTorch 1.11 copies the state_dict."""
    write_random_run(tmp_path / "run")
    export_run(tmp_path / "run", "corl", tmp_path / "corl")
    with zipfile.ZipFile(tmp_path / "corl/dt_checkpoint.pt") as file:
        (name,) = (n for n in file.namelist() if n.endswith("data.pkl"))
        content = file.read(name)
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    assert b"numpy._core" not in content
    assert b"numpy._core" in pickle.dumps(np.arange(3.0), protocol=2)  # as before
    saved = torch.load(tmp_path / "corl/dt_checkpoint.pt", weights_only=False)
    state = OrderedDict(saved["model_state"])
    assert all(tensor.is_contiguous() for tensor in state.values())
    assert state["blocks.1.causal_mask"].dtype == torch.bool
    assert state["blocks.1.causal_mask"].shape == (3 * T, 3 * T)


def test_network_with_another_activation_is_not_exported(tmp_path):
    write_random_run(tmp_path / "run", activation="relu")
    message = "activation=gelu, but this one has relu: choose --to=hf"
    with pytest.raises(UserError, match=message):
        export_run(tmp_path / "run", "corl", tmp_path / "corl")
    assert [*tmp_path.iterdir()] == [tmp_path / "run"]


@pytest.mark.parametrize("name", ["", "dt_checkpoint.pt"])
def test_imported_agent_acts_as_in_corl(tmp_path, corl, capsys, name):
    folder, theirs = corl
    import_run(folder / name, "corl", tmp_path / "run")
    line = f"{tmp_path}/run: a run with the parameters of {folder / name}\n"
    assert capsys.readouterr().out == line
    assert theirs.std() > 0.1
    ours = play(Policy.load(tmp_path / "run"))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_imported_configuration_is_that_of_config_yaml(tmp_path, corl):
    """And otherwise dt_jax's defaults; paths and devices are not taken over."""
    import_run(corl[0], "corl", tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["env_name"] == "hopper-medium-v2"
    assert config["target_returns"] == [3600.0, 1800.0]
    assert config["residual_dropout"] == 0.2
    assert config["clip_grad"] is None
    assert config["lr_schedule"] == "warmup_constant"
    assert config["learning_rate"] == 1e-4
    assert config["checkpoints_path"] is None
    assert config["device"] == "auto"


def test_flags_win_over_config_yaml(tmp_path, corl):
    folder, theirs = corl
    import_run(folder, "corl", tmp_path / "run", num_heads=1)
    ours = play(Policy.load(tmp_path / "run"))
    assert np.abs(ours - theirs).max() > 0.01
    with pytest.raises(UserError, match="num_heads=5"):
        import_run(folder, "corl", tmp_path / "other", num_heads=5)


def test_values_without_config_yaml_are_required_as_flags(tmp_path, corl):
    folder, theirs = corl
    (folder / "config.yaml").unlink()
    message = r"has --num_heads=\.\.\. --reward_scale=\.\.\.: give the values of its"
    with pytest.raises(UserError, match=message):
        import_run(folder, "corl", tmp_path / "run")
    flags = {"num_heads": 3, "reward_scale": 0.5, "max_action": 1.5}
    import_run(folder, "corl", tmp_path / "run", **flags)
    ours = play(Policy.load(tmp_path / "run"))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_round_trip_preserves_every_bit(tmp_path):
    run, out, back = (tmp_path / name for name in ("run", "corl", "back"))
    write_random_run(run, target_returns=(3.0, 2.0), eval_seed=5)
    export_run(run, "corl", out)
    import_run(out, "corl", back)
    ours, again = (Policy.load(folder) for folder in (run, back))
    np.testing.assert_array_equal(play(ours), play(again))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seq_len: [", "is not a config.yaml of CORL: while parsing"),
        ("- 1\n- 2\n", "has none of CORL's keys"),
        ("", "has none of CORL's keys"),
        ("a: 1", "has none of CORL's keys"),
        ("seq_len: nine\n", r"\.yaml: seq_len=nine: expected an integer from 1"),
        ("seq_len: 9\n", "seq_len=4, but its configuration or a flag has seq_len=9"),
        ("embedding_dim: 16\n", "has embedding_dim=12, but its configuration"),
        ("num_heads: two\n", r"\.yaml: num_heads=two: expected an integer from 1"),
        ("reward_scale: .nan\n", "reward_scale=nan: expected"),
        ("max_action: {a: 1}\n", "max_action=.*expected"),
        ("\0", "is not a config.yaml"),
        ("[" * 9999, "is not a config.yaml"),
        ("num_heads: !!python/object/apply:os.getcwd []\n", "could not determine a c"),
    ],
)
def test_invalid_config_yaml_is_one_line(tmp_path, corl, text, message):
    folder, _ = corl
    (folder / "config.yaml").write_text(text)
    flags = {"num_heads": 3, "reward_scale": 0.5, "max_action": 1.5}
    flags = {key: value for key, value in flags.items() if f"{key}:" not in text}
    with pytest.raises(UserError, match=message) as error:
        import_run(folder, "corl", tmp_path / "run", **flags)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_config_yaml_of_pyrallis_is_read(tmp_path):
    """Its lists have one line per entry; a Tuple is such a list."""
    path = tmp_path / "config.yaml"
    path.write_text("betas:\n- 0.9\n- 0.999\nclip_grad: 0.25\nname: DT-x\nnew: 1\n")
    read = read_config(path)
    assert read == {"name": "DT-x", "betas": (0.9, 0.999), "clip_grad": 0.25}
