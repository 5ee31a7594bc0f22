"""The export command, with everything that needs no PyTorch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import refusal
from command import run as run_command
from flax.traverse_util import flatten_dict
from random_run import (
    STEPS,
    A,
    S,
    T,
    docs_example,
    export_run,
    make_config,
    make_normalizer,
    random_params,
    write_random_run,
)
from safetensors.numpy import load_file

import dt_jax
from dt_jax.agents.dt import DecisionTransformerAgent
from dt_jax.cli import export as command
from dt_jax.config.load import from_dict
from dt_jax.evaluation.policy import Policy
from dt_jax.interop import common
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import temporary_path

EXPORT = ["-m", "dt_jax", "export"]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    write_random_run(folder)
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_safetensors_has_parameters_configuration_and_units(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    normalizer = make_normalizer(0.5, 3.0)
    params = write_random_run(run, normalizer=normalizer, max_action=2.0)
    export_run(run, "safetensors", out)
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "dt_jax.json"}
    arrays = load_file(out / "model.safetensors")
    flat = flatten_dict(params, sep="/")
    assert arrays.keys() == flat.keys()
    for name, array in flat.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)
    record = json.loads((out / "dt_jax.json").read_text())
    for key, value in normalizer.to_record().items():
        assert record[key] == value
    assert from_dict(record["config"]) == make_config(max_action=2.0)
    assert record["step"] == 7
    assert record["dataset"]["source"] == "hopper-demo.hdf5"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{out}: {run} after 7 updates, for safetensors"
    assert "action_scale * action" in lines[1]


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_numpy_example_of_the_docs_acts_the_same(tmp_path, activation, monkeypatch):
    """It does not import dt_jax."""
    run, normalizer = tmp_path / "run", make_normalizer(0.5, 3.0)
    write_random_run(run, None, normalizer, activation=activation, max_action=2.0)
    export_run(run, "safetensors", tmp_path / "exported")
    monkeypatch.chdir(tmp_path)
    code, names = docs_example("def act(observations"), {}
    assert "dt_jax." not in code.replace("dt_jax.json", "")
    exec(code, names)
    rng = np.random.default_rng(5)
    observations = rng.normal(2, 1, (STEPS, S))
    rewards = rng.uniform(0, 1, STEPS)
    policy = Policy.load(run)
    policy.reset(3.0)
    actions, returns_to_go = np.zeros((STEPS, A)), np.zeros(STEPS)
    for t in range(STEPS):
        reward = rewards[t - 1] if t else None
        returns_to_go[t] = returns_to_go[t - 1] - reward if t else 3.0
        recent = slice(max(t - T + 1, 0), t + 1)
        actions[t] = names["act"](
            observations[recent],
            actions[recent],
            returns_to_go[recent],
            np.arange(STEPS)[recent],
        )
        ours = policy.act(observations[t], reward)
        np.testing.assert_allclose(actions[t], ours, atol=1e-5)


class OtherAgent(DecisionTransformerAgent):
    """Another algorithm, with parameters that are not nested dicts of arrays."""

    def acting_params(self, state):
        return [super().acting_params(state)["state_emb"], {"count": state.step}]

    def validation_loss(self, params, batch):
        return jnp.zeros_like(batch.actions)

    def act(self, params, context, observations, rewards, done):
        return context, observations @ params[0]["kernel"][:, : self.action_size]


@pytest.fixture
def other_run(tmp_path, monkeypatch):
    """A run of an agent that is not the Decision Transformer."""
    monkeypatch.setattr("dt_jax.agents._REGISTERED", {})
    dt_jax.register("other", OtherAgent)
    kernel = {"kernel": np.ones((S, 12), np.float32), "bias": np.ones(12, np.float32)}
    params = [kernel, {"count": np.int32(3)}]
    write_random_run(tmp_path / "other", params, agent="other")
    return tmp_path / "other"


def test_safetensors_holds_any_agent(tmp_path, other_run):
    export_run(other_run, "safetensors", tmp_path / "out")
    arrays = load_file(tmp_path / "out/model.safetensors")
    assert arrays.keys() == {"0/kernel", "0/bias", "1/count"}
    assert arrays["1/count"] == 3


@pytest.mark.parametrize("to", ["corl", "hf"])
def test_other_formats_hold_only_decision_transformers(tmp_path, other_run, to):
    message = f"a run of the agent other: --to={to} is only for dt; choose --to=safe"
    with pytest.raises(UserError, match=message):
        export_run(other_run, to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["safetensors", "hf"])
def test_weights_have_the_permissions_of_new_files(tmp_path, run, to):
    export_run(run, to, tmp_path / "out")
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert modes == {(tmp_path / "run/config.json").stat().st_mode}


def test_one_of_several_seeds_is_exported(tmp_path):
    """The run has two seeds, 10 and 11."""
    run, out = tmp_path / "several", tmp_path / "out"
    seeds = [random_params(make_config(), make_normalizer(), seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *seeds)
    write_random_run(run, stacked, num_seeds=2)
    with pytest.raises(UserError, match="has 2 seeds, from 10 on: choose one by --s"):
        export_run(run, "safetensors", out)
    with pytest.raises(UserError, match="has no seed 12"):
        export_run(run, "safetensors", out, "--seed=12")
    export_run(run, "safetensors", out, "--seed=11")
    arrays = load_file(out / "model.safetensors")
    bias = seeds[1]["action_head"]["bias"]
    np.testing.assert_array_equal(arrays["action_head/bias"], bias)
    config = json.loads((out / "dt_jax.json").read_text())["config"]
    assert (config["num_seeds"], config["train_seed"]) == (1, 11)


def test_missing_pytorch_is_reported(tmp_path, run, monkeypatch):
    monkeypatch.setattr(common, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^dt_checkpoint.pt needs PyT.*dt_jax\[corl\]"):
        export_run(run, "corl", tmp_path / "corl")
    assert not (tmp_path / "corl").exists()


def test_parameters_that_are_not_finite_are_refused(tmp_path):
    params = random_params(make_config(), make_normalizer())
    params["action_head"]["bias"][0] = np.nan
    write_random_run(tmp_path / "run", params)
    with pytest.raises(UserError, match="action_head/bias of checkpoint 7 has NaN"):
        export_run(tmp_path / "run", "safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["hf", "safetensors"])
def test_existing_folder_is_not_overwritten(tmp_path, run, to):
    out = tmp_path / "out"
    out.mkdir()
    export_run(run, to, out)  # an empty folder is accepted
    before = contents(tmp_path)
    with pytest.raises(UserError, match="out exists: choose another --out"):
        export_run(run, to, out)
    assert contents(tmp_path) == before


def test_failed_export_leaves_no_files(tmp_path, run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "write_text", full)
    before = contents(tmp_path)
    with pytest.raises(OSError, match="No space"):
        export_run(run, "hf", tmp_path / "out")
    assert contents(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{run} --out={new}", ["required: --to"]),
        ("{run} --to=onnx --out={new}", ["invalid choice: 'onnx'"]),
        ("{new} --to=hf --out={new}", ["new/checkpoints: is ", "a run's folder?"]),
        ("{run} --to=hf --out={new} --checkpoint=9", ["no checkpoint '9'", "last"]),
        ("{run} --to=hf --out={run}", ["run exists", "another --out"]),
    ],
)
def test_mistake_on_the_command_line_is_one_line(tmp_path, run, arguments, words):
    before = contents(tmp_path)
    with pytest.raises(UserError) as error:
        command.main(arguments.format(run=run, new=tmp_path / "new").split())
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    assert contents(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_command_in_a_process_of_its_own(tmp_path, run):
    """Only here, because each start takes seconds."""
    out = tmp_path / "out"
    status, printed, err = run_command(*EXPORT, run, "--to=safetensors", f"--out={out}")
    assert (status, err) == (0, "")
    assert printed == f"{out}: {run} after 7 updates, for safetensors\n"
    line = refusal(*EXPORT, run, "--to=safetensors", f"--out={out}")
    assert line == f"python -m dt_jax export: error: {out} exists: choose another --out"


def test_the_next_export_removes_what_a_killed_one_has_left(tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    write_random_run(run)
    (temporary_path(out) / "params").mkdir(parents=True)
    export_run(run, "safetensors", out)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}


@pytest.mark.parametrize("change", [{"mixer": "conv"}, {"attention_band": "fit"}])
@pytest.mark.parametrize("to", ["corl", "hf"])
def test_a_network_that_another_program_lacks_is_refused(tmp_path, to, change):
    write_random_run(tmp_path / "run", **change)
    ((key, value),) = change.items()
    with pytest.raises(UserError, match=f"has {key}={value}, which the network of"):
        export_run(tmp_path / "run", to, tmp_path / "out")
    assert not (tmp_path / "out").exists()
