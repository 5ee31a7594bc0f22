"""The import command, with everything that needs no PyTorch."""

import json
import shutil

import jax
import numpy as np
import pytest
from random_run import (
    EPISODE,
    A,
    S,
    T,
    export_run,
    import_run,
    make_normalizer,
    play,
    write_random_run,
)
from safetensors.numpy import load_file, save_file

from dt_jax.cli import import_ as command
from dt_jax.cli.evaluate import main as evaluate
from dt_jax.config import default_config
from dt_jax.config.load import from_dict
from dt_jax.evaluation.policy import Policy, load_agent
from dt_jax.runs.folder import read_run
from dt_jax.training import warm_start
from dt_jax.training.resume import last_checkpoint
from dt_jax.utils.errors import UserError


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run and its export for Hugging Face."""
    folder = tmp_path_factory.mktemp("exported")
    write_random_run(folder / "run")
    export_run(folder / "run", "hf", folder / "hf")
    return folder


@pytest.fixture
def hf(exported, tmp_path):
    """A copy of the export."""
    return shutil.copytree(exported / "hf", tmp_path / "hf")


def test_round_trip_through_hf_preserves_actions(exported, tmp_path, capsys):
    """The rows of the timestep table beyond an episode become zero."""
    run, hf, back = exported / "run", exported / "hf", tmp_path / "back"
    import_run(hf, "hf", back)
    line = f"{back}: a run with the parameters of {hf}\n"
    assert capsys.readouterr().out == line
    np.testing.assert_array_equal(play(Policy.load(run)), play(Policy.load(back)))
    before, after = (load_agent(folder, "last").params for folder in (run, back))
    table = after["timestep_emb"]["embedding"]
    assert table.shape == (EPISODE + T, 12)
    assert not table[EPISODE:].any()
    del before["timestep_emb"], after["timestep_emb"]
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_round_trip_through_hf_preserves_the_units(tmp_path):
    """max_action goes into action_scale, and into the weights that embed actions."""
    run, normalizer = tmp_path / "run", make_normalizer(0.5, 3.0)
    write_random_run(run, normalizer=normalizer, max_action=2.0)
    export_run(run, "hf", tmp_path / "hf")
    import_run(tmp_path / "hf", "hf", tmp_path / "back")
    agent = load_agent(tmp_path / "back", "last").agent
    assert agent.model.max_action == 1
    assert (agent.normalizer.action_scale == 6).all()
    ours, again = Policy.load(run), Policy.load(tmp_path / "back")
    np.testing.assert_allclose(play(ours), play(again), atol=1e-5)


def test_round_trip_through_hf_preserves_the_configuration(tmp_path):
    """Except paths and devices of the machine that it was trained on."""
    write_random_run(
        tmp_path / "run",
        reference_scores=(-1.0, 5.0),
        env_backend="gym",
        data_path="data.hdf5",
        device="cpu",
    )
    export_run(tmp_path / "run", "hf", tmp_path / "hf")
    import_run(tmp_path / "hf", "hf", tmp_path / "back")
    before, after = (
        load_agent(tmp_path / name, "last").record["config"] for name in ("run", "back")
    )
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"data_path", "device"}
    assert after["data_path"] is None


def test_values_that_a_model_lacks_are_flags(hf, tmp_path):
    (hf / "dt_jax.json").unlink()
    message = r"has no dt_jax\.json: observations are not normalised"
    with (
        pytest.warns(UserWarning, match=message),
        pytest.raises(UserError, match=r"have its reward_scale: .* --reward_scale="),
    ):
        import_run(hf, "hf", tmp_path / "back")
    flags = {"reward_scale": 0.25, "seq_len": 3, "env_name": "walker2d-demo"}
    with pytest.warns(UserWarning, match=message):
        import_run(hf, "hf", tmp_path / "back", **flags)
    trained = load_agent(tmp_path / "back", "last")
    assert trained.agent.normalizer.reward_scale == 0.25
    assert trained.agent.model.seq_len == 3
    assert trained.record["config"]["env_name"] == "walker2d-demo"
    assert not trained.agent.normalizer.state_mean.any()
    assert (trained.agent.normalizer.state_std == 1).all()
    with pytest.warns(UserWarning, match=message):
        import_run(hf, "hf", tmp_path / "default", reward_scale=1.0)
    config = load_agent(tmp_path / "default", "last").record["config"]
    assert config["seq_len"] == 20
    assert config["env_name"] is None


def test_import_cannot_be_resumed(exported, tmp_path):
    """It can be loaded, evaluated, and start a run."""
    back, hf = tmp_path / "back", exported / "hf"
    import_run(hf, "hf", back)
    config = from_dict(json.loads((back / "config.json").read_text()))
    with pytest.raises(UserError, match="was imported and cannot be resumed: start a"):
        last_checkpoint(back, config)
    with pytest.raises(UserError, match="back was imported: there are no metrics"):
        read_run(back)
    again = default_config(**config.to_dict()).lock()
    start = warm_start.load(str(back), again)
    ours = load_agent(exported / "run", "last").params["action_head"]
    jax.tree.map(np.testing.assert_array_equal, start.params["action_head"], ours)
    about = json.loads((back / "versions.json").read_text())
    assert about["dataset"]["imported_from"] == "hf"
    assert about["dataset"]["source"] == str(hf)


def test_import_can_be_evaluated(tmp_path, capsys):
    normalizer = make_normalizer(states=11)  # hopper's observations
    write_random_run(tmp_path / "run", normalizer=normalizer, episode_len=1000)
    export_run(tmp_path / "run", "hf", tmp_path / "hf")
    import_run(tmp_path / "hf", "hf", tmp_path / "back")
    evaluate([str(tmp_path / "back"), "--target_returns=100", "--episodes=2"])
    printed = capsys.readouterr().out
    assert "imported" in printed
    assert "100" in printed


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(path, **values):
    arrays = load_file(path) | values
    arrays = {name: array for name, array in arrays.items() if array is not None}
    save_file(arrays, path, metadata={"format": "pt"})


CONFIG, WEIGHTS, RECORD = "config.json", "model.safetensors", "dt_jax.json"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (CONFIG, None, "expected a folder with the config.json and the weights"),
        (CONFIG, b"{", r"config\.json is not JSON"),
        (CONFIG, b"[1]", r"config\.json: expected a JSON object, got \[1\]"),
        (WEIGHTS, None, "no model.safetensors or pytorch_model.bin in"),
        (WEIGHTS, b"\1", "is not a valid safetensors file"),
        (WEIGHTS, b"", "is not a valid safetensors file"),  # truncated
        (RECORD, b"{}", "state_mean is empty or has NaN"),
    ],
)
def test_invalid_file_is_one_line(hf, tmp_path, name, content, message):
    if content is None:
        (hf / name).unlink()
    else:
        (hf / name).write_bytes(content or (hf / name).read_bytes()[:-1])
    check_refusal(hf, tmp_path / "run", message)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (CONFIG, {"model_type": "gpt2"}, "has model_type=gpt2: only decision_transf"),
        (CONFIG, {"n_head": 5}, "has num_heads=5, but its configuration or a flag has"),
        (CONFIG, {"attn_pdrop": 2}, "has attention_dropout=2, but its configuration"),
        (CONFIG, {"activation_function": [1]}, r"has activation=\[1\], but its config"),
        (RECORD, {"state_mean": [1]}, "expected 5 numbers as its state_mean"),
        (RECORD, {"state_std": "x"}, "state_std is not an array of numbers"),
        (RECORD, {"state_std": [0] * S}, "state_std has a value that is not positive"),
        (RECORD, {"action_scale": [-1] * A}, "action_scale has a value that is not p"),
        (RECORD, {"config": 3}, "dt_jax.json: its config is not valid"),
        (RECORD, {"config": {"agent": "dt"}}, "another version of dt_jax"),
    ],
)
def test_invalid_value_in_json_is_one_line(hf, tmp_path, name, values, message):
    change_json(hf / name, **values)
    check_refusal(hf, tmp_path / "run", message)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("embed_ln.bias", None, r"missing \['embed_ln.bias'\]"),
        ("more", np.zeros(2, "f4"), r"unknown \['more'\]"),
        ("embed_ln.bias", np.full(12, np.nan, "f4"), "embed_ln.bias is empty or has N"),
        ("embed_state.weight", np.ones((9, S), "f4"), r"different arch.* \(5, 9\)"),
    ],
)
def test_invalid_array_is_one_line(hf, tmp_path, name, array, message):
    change_weights(hf / WEIGHTS, **{name: array})
    check_refusal(hf, tmp_path / "run", message)


def check_refusal(hf, out, message):
    with pytest.raises(UserError, match=message) as error:
        import_run(hf, "hf", out)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{hf} --out={new}", ["required: --from"]),
        ("{hf} --from=safetensors --out={new}", ["invalid choice: 'safetensors'"]),
        ("{hf} --from=hf --out={new} --num_heads=1", ["num_heads=2, but"]),
        ("{hf} --from=hf --out={new} --max_action=2", ["max_action=1.0, but its conf"]),
        ("{hf} --from=hf --out={new} --seq_len=x", ["seq_len=x: expected an int"]),
        ("{hf} --from=hf --out={hf}", ["hf exists: choose another --out"]),
        ("{hf} --from=hf --out={new}[1]", ["must not contain [ ]", "another --out"]),
        ("{new} --from=hf --out={new}2", ["no ", "config.json: expected a folder"]),
        ("{new} --from=corl --out={new}2", ["expected the checkpoint of CORL's dt.py"]),
        ("{new} --from=corl --out={new} --normalization=x", ["needs --from=hf"]),
    ],
)
def test_mistake_on_the_command_line_is_one_line(exported, tmp_path, arguments, words):
    with pytest.raises(UserError) as error:
        command.main(arguments.format(hf=exported / "hf", new=tmp_path / "new").split())
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    assert not [*tmp_path.iterdir()]
