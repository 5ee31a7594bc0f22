"""The command, and what it writes and reads without PyTorch."""

import json
import shutil

import jax
import numpy as np
import pytest
from a_run import (
    EPISODE,
    A,
    S,
    T,
    config_of,
    page_code,
    params_of,
    played,
    scaling_of,
    write_a_run,
)
from command import refusal
from command import run as run_command
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from dt_jax.cli import export as command
from dt_jax.cli.evaluate import main as evaluate
from dt_jax.cli.export import export, import_run
from dt_jax.config import default_config
from dt_jax.config.load import from_json
from dt_jax.evaluation.policy import Policy, restore
from dt_jax.interop import torch_files
from dt_jax.runs import folder as runs
from dt_jax.runs.checkpoint import Checkpoint
from dt_jax.training import warm_start
from dt_jax.training.resume import last_checkpoint
from dt_jax.utils.errors import UserError

STEPS = 9  # more than T: the window moves on
EXPORT = ["-m", "dt_jax", "export"]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    write_a_run(folder)
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_safetensors_has_everything(tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    params = write_a_run(run, max_action=2.0, center=0.5, scale=3.0)
    lines = export(run, "safetensors", out)
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors",
        "dt_jax.json",
    }
    arrays = load_file(out / "model.safetensors")
    flat = flatten_dict(params, sep="/")
    assert arrays.keys() == flat.keys()
    for name, array in flat.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)
    record = json.loads((out / "dt_jax.json").read_text())
    for key, array in scaling_of(0.5, 3.0).items():
        np.testing.assert_array_equal(np.float32(record[key]), array)
    assert from_json(json.dumps(record["config"])) == config_of(max_action=2.0)
    assert record["step"] == 7
    assert record["dataset"]["source"] == "hopper-demo.hdf5"
    assert lines[0] == f"{out}: {run} after 7 updates, for safetensors"
    assert "action_scale * action" in lines[1]


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_the_pages_plain_numpy_acts_the_same(tmp_path, activation, monkeypatch):
    """The NumPy example of docs/deployment.md, which does not import dt_jax."""
    run = tmp_path / "run"
    write_a_run(run, activation=activation, max_action=2.0, center=0.5, scale=3.0)
    export(run, "safetensors", tmp_path / "exported")
    monkeypatch.chdir(tmp_path)
    code, names = page_code("def act("), {}
    assert "dt_jax." not in code.replace("dt_jax.json", "")
    exec(code, names)
    rng = np.random.default_rng(5)
    observations = rng.normal(2, 1, (STEPS, S))
    rewards = rng.uniform(0, 1, STEPS)
    policy = Policy.load(run)
    policy.reset(3.0)
    actions, returns_to_go = np.zeros((STEPS, A)), np.zeros(STEPS)
    for t in range(STEPS):
        earned = rewards[t - 1] if t else None
        returns_to_go[t] = returns_to_go[t - 1] - earned if t else 3.0
        recent = slice(max(t - T + 1, 0), t + 1)
        actions[t] = names["act"](
            observations[recent],
            actions[recent],
            returns_to_go[recent],
            np.arange(STEPS)[recent],
        )
        ours = policy.act(observations[t], earned)
        np.testing.assert_allclose(actions[t], ours, atol=1e-5)


@pytest.mark.parametrize("to", ["safetensors", "hf"])
def test_whoever_may_read_new_files_may_read_the_weights(tmp_path, run, to):
    export(run, to, tmp_path / "out")
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert modes == {(tmp_path / "run/config.json").stat().st_mode}


def test_hf_there_and_back(tmp_path, run):
    """By its files alone; the table's rows beyond an episode are not kept."""
    export(run, "hf", tmp_path / "hf")
    assert import_run(tmp_path / "hf", "hf", tmp_path / "back", {}) == [
        f"{tmp_path}/back: a run with the parameters of {tmp_path}/hf"
    ]
    ours, again = Policy.load(run), Policy.load(tmp_path / "back")
    np.testing.assert_array_equal(played(ours, STEPS), played(again, STEPS))
    before, after = (restore(f, "last")[1] for f in (run, tmp_path / "back"))
    table = after["timestep_emb"]["embedding"]
    assert table.shape == (EPISODE + T, 12)
    assert not table[EPISODE:].any()
    del before["timestep_emb"], after["timestep_emb"]
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_units_there_and_back(tmp_path):
    """max_action goes into the units, and the other way for what is embedded."""
    run = tmp_path / "run"
    write_a_run(run, max_action=2.0, center=0.5, scale=3.0)
    export(run, "hf", tmp_path / "hf")
    import_run(tmp_path / "hf", "hf", tmp_path / "back", {})
    agent = restore(tmp_path / "back", "last")[0]
    assert agent.model.max_action == 1
    assert (agent.action_scale == 6).all()
    ours, again = Policy.load(run), Policy.load(tmp_path / "back")
    np.testing.assert_allclose(played(ours, STEPS), played(again, STEPS), atol=1e-5)


def test_what_hf_is_told(tmp_path, run):
    export(run, "hf", tmp_path / "hf")
    (tmp_path / "hf/dt_jax.json").unlink()
    with pytest.raises(UserError, match="its reward_scale: give --reward_scale="):
        import_run(tmp_path / "hf", "hf", tmp_path / "back", {})
    told = {"reward_scale": 0.25, "seq_len": 3, "env_name": "walker2d-demo"}
    lines = import_run(tmp_path / "hf", "hf", tmp_path / "back", told)
    assert "has no dt_jax.json: observations go in as they are" in lines[0]
    agent, _, record = restore(tmp_path / "back", "last")
    assert (agent.reward_scale, agent.model.seq_len) == (0.25, 3)
    assert record["config"]["env_name"] == "walker2d-demo"
    assert not agent.state_mean.any()
    assert (agent.state_std == 1).all()
    import_run(tmp_path / "hf", "hf", tmp_path / "default", {"reward_scale": 1.0})
    assert restore(tmp_path / "default", "last")[0].model.seq_len == 20


def test_a_run_from_before_there_was_activation(tmp_path, run, monkeypatch):
    """As restored from a checkpoint that has no such key."""
    older = Checkpoint.record

    def record(self):
        found = older(self)
        del found["config"]["activation"]
        return found

    monkeypatch.setattr(Checkpoint, "record", record)
    export(run, "hf", tmp_path / "hf")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config["activation_function"] == "gelu"


@pytest.fixture
def several(tmp_path):
    """A run of two seeds, 10 and 11, and the parameters of each."""
    params = [params_of(config_of(), scaling_of(), seed) for seed in range(2)]
    together = jax.tree.map(lambda *arrays: np.stack(arrays), *params)
    write_a_run(tmp_path / "several", together, num_seeds=2)
    return tmp_path / "several", params


def test_one_seed_of_several(tmp_path, several):
    run, params = several
    with pytest.raises(UserError, match="has 2 seeds from 10 on: say which by --seed"):
        export(run, "safetensors", tmp_path / "out")
    with pytest.raises(UserError, match="has no seed 12, but 2 from 10 on"):
        export(run, "safetensors", tmp_path / "out", seed=12)
    export(run, "safetensors", tmp_path / "out", seed=11)
    arrays = load_file(tmp_path / "out/model.safetensors")
    bias = params[1]["action_head"]["bias"]
    np.testing.assert_array_equal(arrays["action_head/bias"], bias)
    config = json.loads((tmp_path / "out/dt_jax.json").read_text())["config"]
    assert (config["num_seeds"], config["train_seed"]) == (1, 11)


def test_where_pytorch_is_missing(tmp_path, run, monkeypatch):
    monkeypatch.setattr(torch_files, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^dt_checkpoint.pt: .*dt_jax\[corl\]"):
        export(run, "corl", tmp_path / "corl")
    assert not (tmp_path / "corl").exists()


def test_nan_is_not_exported(tmp_path):
    params = params_of(config_of(), scaling_of())
    params["action_head"]["bias"][0] = np.nan
    write_a_run(tmp_path / "run", params)
    with pytest.raises(UserError, match="action_head/bias of checkpoint 7 has NaN"):
        export(tmp_path / "run", "safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_import_is_no_run_to_go_on_with(tmp_path, run):
    """But one to play, to load and to begin with."""
    back = tmp_path / "back"
    export(run, "hf", tmp_path / "hf")
    import_run(tmp_path / "hf", "hf", back, {})
    config = from_json((back / "config.json").read_text())
    with pytest.raises(UserError, match="was imported, and can't be gone on with: beg"):
        last_checkpoint(back, config)
    with pytest.raises(UserError, match="back was imported: it tells of no training"):
        runs.read(back)
    again = default_config()
    again.update(config)
    start = warm_start.load(str(back), again.lock())
    ours = restore(run, "last")[1]["action_head"]
    jax.tree.map(np.testing.assert_array_equal, start.params["action_head"], ours)
    about = json.loads((back / "versions.json").read_text())
    assert about["dataset"]["imported_from"] == "hf"
    assert about["dataset"]["source"] == str(tmp_path / "hf")


def test_an_import_is_evaluated(tmp_path, monkeypatch, capsys):
    write_a_run(tmp_path / "run", states=11, episode_len=1000)  # as many as hopper has
    export(tmp_path / "run", "hf", tmp_path / "hf")
    import_run(tmp_path / "hf", "hf", tmp_path / "back", {})
    evaluate([str(tmp_path / "back"), "--target_returns=100", "--episodes=2"])
    printed = capsys.readouterr().out
    assert "imported" in printed
    assert "100" in printed


@pytest.mark.parametrize("to", ["hf", "safetensors"])
def test_what_is_there_is_not_overwritten(tmp_path, run, exported, to):
    out = tmp_path / "out"
    out.mkdir()
    export(run, to, out)  # an empty folder may be there
    before = contents(tmp_path)
    with pytest.raises(UserError, match="out is there already: choose another --out"):
        export(run, to, out)
    with pytest.raises(UserError, match="out is there already: choose another --out"):
        import_run(exported / "hf", "hf", out, {})
    assert contents(tmp_path) == before


def test_a_failure_leaves_nothing(tmp_path, run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "write_record", full)
    before = contents(tmp_path)
    with pytest.raises(OSError, match="No space"):
        export(run, "hf", tmp_path / "out")
    assert contents(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder of Hugging Face's form."""
    folder = tmp_path_factory.mktemp("exported")
    write_a_run(folder / "run")
    export(folder / "run", "hf", folder / "hf")
    return folder


@pytest.fixture
def hf(exported, tmp_path):
    return shutil.copytree(exported / "hf", tmp_path / "hf")


def changed(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def weights(path, **values):
    arrays = load_file(path) | values
    arrays = {name: array for name, array in arrays.items() if array is not None}
    save_file(arrays, path, metadata={"format": "pt"})


X, B = "config.json", "model.safetensors"
D = "dt_jax.json"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / X).unlink(), "expected a folder with the config.json and the"),
        (lambda f: (f / X).write_text("{"), r"config\.json is no JSON"),
        (lambda f: (f / X).write_text("[1]"), r"config\.json has no keys"),
        (lambda f: changed(f / X, model_type="gpt2"), "has model_type=gpt2: this netw"),
        (
            lambda f: changed(f / X, n_head=5),
            "has num_heads=5, but dt_jax.json or a flag s",
        ),
        (lambda f: changed(f / X, n_head="x"), "has num_heads=x, but dt_jax.json"),
        (lambda f: changed(f / X, attn_pdrop=2), r"attention_dropout=2: expected a nu"),
        (lambda f: changed(f / X, activation_function=[1]), r"activation_function=\[1"),
        (
            lambda f: changed(f / X, num_attention_heads=3),
            "has num_heads=3, but dt_jax",
        ),
        (lambda f: (f / B).unlink(), "neither model.safetensors nor pytorch_model.bin"),
        (lambda f: (f / B).write_bytes(b"\1"), "is no whole safetensors file"),
        (
            lambda f: (f / B).write_bytes((f / B).read_bytes()[:-1]),
            "is no whole safetensors file",
        ),
        (
            lambda f: weights(f / B, **{"embed_ln.bias": None}),
            r"missing \['embed_ln.bias'\]",
        ),
        (
            lambda f: weights(f / B, more=np.zeros(2, "f4")),
            r"unknown \['more'\]",
        ),
        (
            lambda f: weights(f / B, **{"embed_ln.bias": np.full(12, np.nan, "f4")}),
            "embed_ln.bias is empty, or has NaN",
        ),
        (
            lambda f: weights(f / B, **{"embed_ln.bias": np.zeros(11, "f4")}),
            r"encoder.wpe.weight has rows of 12 numbers, not 11",
        ),
        (
            lambda f: weights(f / B, **{"embed_state.weight": np.array(1, "f4")}),
            r"state_emb/kernel has 0 axes instead of 2",
        ),
        (
            lambda f: weights(f / B, **{"embed_state.weight": np.ones((9, S), "f4")}),
            r"another network than ours: state_emb/kernel has shape \(5, 9\)",
        ),
        (
            lambda f: changed(f / D, state_mean=[1]),
            "expected 5 finite numbers as its s",
        ),
        (
            lambda f: changed(f / D, state_std="x"),
            "expected 5 finite numbers as its st",
        ),
        (lambda f: changed(f / D, state_std=[[1], 2]), "expected 5 finite numbers as "),
        (lambda f: changed(f / D, state_std=[0] * S), "in state_std is not positive"),
        (lambda f: changed(f / D, action_scale=[-1] * A), "in action_scale is not pos"),
        (lambda f: changed(f / D, config=3), "dt_jax.json: "),
        (lambda f: changed(f / D, config={}), "another version of dt_jax"),
        (
            lambda f: (f / D).write_text("{}"),
            "expected 5 finite numbers as its state_m",
        ),
    ],
)
def test_a_folder_that_is_wrong_is_told_in_one_line(hf, tmp_path, damage, message):
    damage(hf)
    with pytest.raises(UserError, match=message) as error:
        import_run(hf, "hf", tmp_path / "run", {})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{run} --out={new}", ["one of the arguments --to --from is required"]),
        ("{run} --to=hf", ["required: --out"]),
        ("{run} --to=onnx --out={new}", ["invalid choice: 'onnx'"]),
        ("{run} --to=hf --from=hf --out={new}", ["not allowed with"]),
        ("{hf} --to=hf --out={new}", ["no checkpoint in", "the folder of a run?"]),
        ("{run} --to=hf --out={new} --checkpoint=9", ["no checkpoint '9'", "last"]),
        ("{run} --to=hf --out={new} --checkpoint=best", ["made at an evaluation"]),
        ("{run} --to=hf --out={new} --seed=3", ["has no seed 3, but 1 from 10 on"]),
        ("{run} --to=hf --out={new} --seed=x", ["argument --seed: invalid int value"]),
        ("{run} --to=hf --out={hf}", ["hf is there already", "another --out"]),
        (
            "{run} --to=hf --out={new} --reward_scale=1",
            ["--reward_scale goes with --f"],
        ),
        (
            "{hf} --from=hf --out={new} --seed=1",
            ["--seed goes with --to, not with --f"],
        ),
        (
            "{hf} --from=hf --out={new} --num_heads=1",
            ["--num_heads goes with --from=c"],
        ),
        (
            "{hf} --from=hf --out={new} --seq_len=0",
            ["--seq_len=0: expected an integer"],
        ),
        (
            "{hf} --from=hf --out={new} --seq_len=x",
            ["--seq_len=x: expected an integer"],
        ),
        ("{hf} --from=hf --out={new}[1]", ["may have no [ ]", "another --out"]),
        ("{new} --from=hf --out={new}2", ["no ", "config.json: expected a folder"]),
        ("{new} --from=corl --out={new}2", ["expected the dt_checkpoint.pt that CORL"]),
        ("{hf} --from=hf --out={new} --normalization={new}", ["there is no such file"]),
    ],
)
def test_a_mistake_is_told_in_one_line(
    exported, tmp_path, arguments, words, monkeypatch
):
    places = {"run": exported / "run", "hf": exported / "hf", "new": tmp_path / "new"}
    with pytest.raises(UserError) as error:
        command.main(arguments.format(**places).split())
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    assert not [*tmp_path.iterdir()]


def test_the_command(exported, tmp_path):
    """As its user starts it; once, for each start takes seconds."""
    out = tmp_path / "out"
    status, printed, err = run_command(
        *EXPORT, exported / "run", "--to=safetensors", f"--out={out}"
    )
    assert (status, err) == (0, "")
    assert printed == f"{out}: {exported / 'run'} after 7 updates, for safetensors\n"
    line = refusal(*EXPORT, exported / "run", "--to=safetensors", f"--out={out}")
    assert line.startswith("python -m dt_jax export: error: ")
    assert "is there already" in line
