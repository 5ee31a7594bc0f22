"""The folder that CORL's dt.py leaves, both ways, against its network in PyTorch."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import yaml
from a_run import EPISODE, A, S, T, episode, page_code, played, scaling_of, write_a_run
from ml_collections import ConfigDict

from dt_jax.cli.export import export, import_run
from dt_jax.evaluation.policy import Policy
from dt_jax.interop.corl_folder import read_config
from dt_jax.utils.errors import UserError

torch = pytest.importorskip("torch")
from benchmarks import torch_dt  # noqa: E402

STEPS = 9  # more than T: the window moves on


class Network(torch_dt.DecisionTransformer):
    """CORL's network, held to its numbers; with the buffers that CORL's has besides."""

    def __init__(self, config):
        super().__init__(ConfigDict(config), S, A)
        length = 3 * config["seq_len"]
        for block in self.blocks:
            mask = ~torch.tril(torch.ones(length, length)).to(bool)
            block.register_buffer("causal_mask", mask)


def act_there(model, mean, std, reward_scale):
    """Return the actions [STEPS, N, A] of CORL's network in `episode`, as it plays."""
    observations, rewards = episode(STEPS)
    states = (observations - mean) / std
    targets = np.array([3.0, -2.0], np.float32) * reward_scale
    earned = np.cumsum(rewards * reward_scale, axis=0)
    returns = np.concatenate([targets[None], targets - earned[:-1]])
    actions = np.zeros((STEPS, 2, A), np.float32)
    times = np.repeat(np.arange(STEPS)[:, None], 2, axis=1)

    def window(array, t):
        return torch.tensor(np.moveaxis(array[max(t - T + 1, 0) : t + 1], 0, 1))

    for t in range(STEPS):
        inputs = (window(array, t) for array in (states, actions, returns, times))
        with torch.no_grad():
            actions[t] = model(*inputs)[:, -1].numpy()
    return actions


def load_there(folder):
    """Load an export as CORL would; return its network, file and configuration."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    saved = torch.load(folder / "dt_checkpoint.pt", weights_only=False)
    model = Network(config).eval()
    model.load_state_dict(saved["model_state"], strict=True)
    return model, saved, config


@pytest.fixture
def there(tmp_path):
    """What CORL leaves of random parameters, and what its network does."""
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
    scaling = scaling_of()
    mean, std = scaling["state_mean"], scaling["state_std"]
    folder = tmp_path / "corl"
    folder.mkdir()
    saved = {"state_mean": mean[None], "state_std": std[None]}
    state = {"model_state": model.state_dict()}
    torch.save(state | saved, folder / "dt_checkpoint.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder, act_there(model, mean, std, 0.5)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("max_action", [1.0, 1.5])
def test_a_run_acts_the_same_there(tmp_path, heads, max_action):
    run, out = tmp_path / "run", tmp_path / "corl"
    write_a_run(run, num_heads=heads, max_action=max_action)
    assert export(run, "corl", out) == [f"{out}: {run} after 7 updates, for corl"]
    model, saved, config = load_there(out)
    assert saved["state_mean"].shape == saved["state_std"].shape == (1, S)
    theirs = act_there(
        model, saved["state_mean"], saved["state_std"], config["reward_scale"]
    )
    ours = played(Policy.load(run), STEPS)
    assert ours.std() > 0.1
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_the_page_loads_it(tmp_path, monkeypatch):
    """With CORL's own names for what it needs."""
    write_a_run(tmp_path / "run", num_heads=3)
    export(tmp_path / "run", "corl", tmp_path / "hopper-corl")
    monkeypatch.chdir(tmp_path)
    rest = ("attention_dropout", "residual_dropout", "embedding_dropout")

    def network(state_dim, action_dim, **config):
        return Network(config | dict.fromkeys(rest, 0.0))

    names = {"yaml": yaml, "torch": torch, "Path": Path, "DecisionTransformer": network}
    exec(page_code("load_state_dict"), names)
    mean, std = (names["saved"][key] for key in ("state_mean", "state_std"))
    theirs = act_there(names["model"], mean, std, names["config"]["reward_scale"])
    ours = played(Policy.load(tmp_path / "run"), STEPS)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_the_units_of_actions_go_into_max_action(tmp_path):
    """CORL steps the environment with what its network gives."""
    run, out = tmp_path / "run", tmp_path / "corl"
    write_a_run(run, max_action=0.5, scale=4.0)
    assert len(export(run, "corl", out)) == 1
    model, saved, config = load_there(out)
    assert config["max_action"] == 2
    theirs = act_there(model, saved["state_mean"], saved["state_std"], 0.5)
    np.testing.assert_allclose(theirs, played(Policy.load(run), STEPS), atol=1e-5)


def test_other_units_are_told(tmp_path):
    write_a_run(tmp_path / "run", center=1.0)
    lines = export(tmp_path / "run", "corl", tmp_path / "corl")
    assert "action_center + action_scale * action" in lines[-1]


def test_config_yaml_has_corls_keys_and_no_others(tmp_path):
    """pyrallis refuses any that its TrainConfig has not."""
    write_a_run(tmp_path / "run", clip_grad=None)
    export(tmp_path / "run", "corl", tmp_path / "corl")
    values = yaml.safe_load((tmp_path / "corl/config.yaml").read_text())
    assert values["clip_grad"] is None
    assert values["target_returns"] == [12000.0, 6000.0]
    assert values["deterministic_torch"] is False
    assert values["env_name"] == "hopper-demo"
    assert not values.keys() - {
        *("project", "group", "name", "embedding_dim", "num_layers", "num_heads"),
        *("seq_len", "episode_len", "attention_dropout", "residual_dropout"),
        *("embedding_dropout", "max_action", "env_name", "learning_rate", "betas"),
        *("weight_decay", "clip_grad", "batch_size", "update_steps", "warmup_steps"),
        *("reward_scale", "num_workers", "target_returns", "eval_episodes"),
        *("eval_every", "checkpoints_path", "deterministic_torch", "train_seed"),
        *("eval_seed", "device"),
    }


def test_numpy_1_can_read_it(tmp_path):
    """CORL's requirements have it; NumPy 2's module has another name there."""
    write_a_run(tmp_path / "run")
    export(tmp_path / "run", "corl", tmp_path / "corl")
    with zipfile.ZipFile(tmp_path / "corl/dt_checkpoint.pt") as file:
        (name,) = (n for n in file.namelist() if n.endswith("data.pkl"))
        content = file.read(name)
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    assert b"numpy._core" not in content
    array = pickle.dumps(np.arange(3.0), protocol=2)
    old = array.replace(b"numpy._core", b"numpy.core")
    assert old != array
    np.testing.assert_array_equal(pickle.loads(old), np.arange(3.0))


@pytest.mark.parametrize("name", ["", "dt_checkpoint.pt"])
def test_what_corl_saved_acts_the_same_here(tmp_path, there, name):
    folder, theirs = there
    lines = import_run(folder / name, "corl", tmp_path / "run", {})
    assert lines == [f"{tmp_path}/run: a run with the parameters of {folder / name}"]
    ours = played(Policy.load(tmp_path / "run"), STEPS)
    assert theirs.std() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_what_is_told_wins_over_config_yaml(tmp_path, there):
    folder, theirs = there
    import_run(folder, "corl", tmp_path / "run", {"num_heads": 1})
    ours = played(Policy.load(tmp_path / "run"), STEPS)
    assert np.abs(ours - theirs).max() > 0.01
    with pytest.raises(UserError, match="num_heads=5"):
        import_run(folder, "corl", tmp_path / "other", {"num_heads": 5})


def test_without_config_yaml_the_rest_is_asked_for(tmp_path, there):
    folder, theirs = there
    (folder / "config.yaml").unlink()
    message = r"says --num_heads=\.\.\. --reward_scale=\.\.\.: give what it was trained"
    with pytest.raises(UserError, match=message):
        import_run(folder, "corl", tmp_path / "run", {})
    told = {"num_heads": 3, "reward_scale": 0.5, "max_action": 1.5}
    import_run(folder, "corl", tmp_path / "run", told)
    ours = played(Policy.load(tmp_path / "run"), STEPS)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_there_and_back_to_the_last_bit(tmp_path):
    run, out, back = (tmp_path / name for name in ("run", "corl", "back"))
    write_a_run(run, target_returns=(3.0, 2.0), eval_seed=5)
    export(run, "corl", out)
    import_run(out, "corl", back, {})
    ours, again = (Policy.load(folder) for folder in (run, back))
    np.testing.assert_array_equal(played(ours, STEPS), played(again, STEPS))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seq_len: [", "is no config.yaml of CORL's: while parsing"),
        ("- 1\n- 2\n", "has none of its keys"),
        ("", "has none of its keys"),
        ("a: 1", "has none of its keys"),
        ("seq_len: nine\n", r"\.yaml: seq_len=nine: expected an integer from 1"),
        ("seq_len: 9\n", "has seq_len=4, but config.yaml or a flag says seq_len=9: th"),
        ("embedding_dim: 16\n", "has embedding_dim=12, but config.yaml"),
        ("num_heads: two\n", r"\.yaml: num_heads=two: expected an integer from 1"),
        ("reward_scale: .nan\n", "reward_scale=nan: expected"),
        ("max_action: {a: 1}\n", "max_action=.*expected"),
        ("max_action: null\n", "max_action is None there: give --max_action=..."),
        ("\0", "is no config.yaml"),
        ("[" * 9999, "is no config.yaml"),
        ("num_heads: !!python/object/apply:os.getcwd []\n", "could not determine a c"),
    ],
)
def test_a_config_yaml_that_is_wrong_is_told_in_one_line(
    tmp_path, there, text, message
):
    folder, _ = there
    (folder / "config.yaml").write_text(text)
    told = {"num_heads": 3, "reward_scale": 0.5, "max_action": 1.5}
    told = {key: value for key, value in told.items() if f"{key}:" not in text}
    with pytest.raises(UserError, match=message) as error:
        import_run(folder, "corl", tmp_path / "run", told)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_pyrallis_writes_what_is_read(tmp_path):
    """Its lists have a line an entry; a Tuple is one of them."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "betas:\n- 0.9\n- 0.999\nclip_grad: 0.25\nname: DT-x-1b2c\nnew: 1\n"
    )
    read = read_config(path)
    assert read == {"name": "DT-x-1b2c", "betas": (0.9, 0.999), "clip_grad": 0.25}


def test_another_activation_is_none_of_corls(tmp_path):
    write_a_run(tmp_path / "run", activation="relu")
    with pytest.raises(UserError, match="activation=gelu, and this one relu: give --t"):
        export(tmp_path / "run", "corl", tmp_path / "corl")
    assert not (tmp_path / "corl").exists()
    assert [*tmp_path.iterdir()] == [tmp_path / "run"]


def test_it_is_a_state_dict_for_old_versions_too(tmp_path):
    """PyTorch 1.11, which CORL requires, copies it into an OrderedDict."""
    write_a_run(tmp_path / "run")
    export(tmp_path / "run", "corl", tmp_path / "corl")
    saved = torch.load(tmp_path / "corl/dt_checkpoint.pt", weights_only=False)
    state = OrderedDict(saved["model_state"])
    assert all(tensor.is_contiguous() for tensor in state.values())
    assert state["blocks.1.causal_mask"].dtype == torch.bool
    assert state["blocks.1.causal_mask"].shape == (3 * T, 3 * T)
