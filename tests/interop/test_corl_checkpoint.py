"""Reading the dt_checkpoint.pt of CORL's dt.py, written by PyTorch like CORL's."""

import pickle
import zipfile

import jax
import numpy as np
import pytest

from dt_jax.interop import common
from dt_jax.interop.corl import read_checkpoint, state_dict_from_params
from dt_jax.networks.decision_transformer import DecisionTransformer
from dt_jax.utils.errors import UserError

torch = pytest.importorskip("torch")
S, A, T = 4, 2, 3


@pytest.fixture(scope="module")
def params():
    model = DecisionTransformer(
        action_size=A,
        seq_len=T,
        episode_len=10,
        embedding_dim=8,
        num_layers=2,
        num_heads=2,
        attention_dropout=0.1,
        residual_dropout=0.1,
        embedding_dropout=0.1,
        max_action=1.0,
    )
    rng, inputs = np.random.default_rng(0), [(1, T, S), (1, T, A), (1, T)]
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), *map(np.zeros, inputs), np.zeros((1, T), int)
    )
    return jax.tree.map(lambda x: rng.standard_normal(x.shape), shapes["params"])


@pytest.fixture
def saved(params):
    """The dict that dt.py passes to torch.save, in float32."""
    mask = ~torch.tril(torch.ones(3 * T, 3 * T)).to(bool)
    state_dict = {
        name: torch.tensor(array, dtype=torch.float32)
        for name, array in state_dict_from_params(params).items()
    }
    masks = {f"blocks.{i}.causal_mask": mask for i in range(2)}
    return {
        "model_state": state_dict | masks,
        "state_mean": np.arange(S, dtype=np.float32)[None],
        "state_std": np.arange(1, S + 1, dtype=np.float32)[None],
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "dt_checkpoint.pt"


def check_content(read, params):
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_array_equal(
            ours, theirs.astype(np.float32), strict=True
        ),
        read.params,
        params,
    )
    mean = np.arange(S, dtype=np.float32)
    np.testing.assert_array_equal(read.state_mean, mean, strict=True)
    np.testing.assert_array_equal(read.state_std, mean + 1, strict=True)


def test_checkpoint_of_corl_is_read(saved, params, path):
    torch.save(saved, path)
    read = read_checkpoint(path)
    check_content(read, params)
    assert read.seq_len == T


def test_float64_is_converted_to_float32(saved, params, path):
    saved["model_state"] = {k: v.double() for k, v in saved["model_state"].items()}
    for name in ("state_mean", "state_std"):
        saved[name] = saved[name].astype(np.float64)
    torch.save(saved, path)
    check_content(read_checkpoint(path), params)


def test_seq_len_is_unknown_without_masks(saved, params, path):
    """As `state_dict_from_params` returns it: CORL loads it with strict=False."""
    del saved["model_state"]["blocks.0.causal_mask"]
    del saved["model_state"]["blocks.1.causal_mask"]
    torch.save(saved, path)
    read = read_checkpoint(path)
    check_content(read, params)
    assert read.seq_len is None


def test_file_written_with_numpy_1_is_read(saved, params, path):
    """CORL requires it; it pickles arrays under another name."""
    torch.save(saved, path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            if name.endswith("data.pkl"):
                assert b"numpy._core" in content
                content = content.replace(b"numpy._core", b"numpy.core")
            file.writestr(name, content)
    check_content(read_checkpoint(path), params)


class Evil:
    """Unpickling it creates a file."""

    def __init__(self, victim):
        self.victim = str(victim)

    def __reduce__(self):
        return open, (self.victim, "w")


@pytest.mark.parametrize("place", ["model_state", "state_mean", "inside an array"])
def test_code_in_a_file_is_not_executed(saved, path, place):
    victim = path.with_name("victim")
    if place == "inside an array":
        saved["state_mean"] = np.array([Evil(victim)] * S, object)
    else:
        saved[place] = Evil(victim)
    torch.save(saved, path)
    with pytest.raises(UserError, match="is not a checkpoint of CORL's"):
        read_checkpoint(path)
    assert not victim.exists()


def test_the_attack_works_without_protection(saved, path):
    """Otherwise the test above proves nothing."""
    victim = path.with_name("victim")
    torch.save(saved | {"state_mean": Evil(victim)}, path)
    torch.load(path, weights_only=False)["state_mean"].close()
    assert victim.exists()


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(saved, path, share):
    torch.save(saved, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="copy it again") as error:
        read_checkpoint(path)
    assert str(path) in one_line(error)


@pytest.mark.parametrize("kind", ["text", "pickle", "npz"])
def test_other_file_types_are_refused(path, kind):
    with path.open("wb") as file:
        if kind == "text":
            file.write(b"learning_rate: 0.1\n")
        elif kind == "pickle":
            pickle.dump({"model_state": {}}, file)
        else:
            np.savez(file, a=np.zeros(3))
    with pytest.raises(UserError, match="is not a checkpoint of CORL") as error:
        read_checkpoint(path)
    one_line(error)


def changed(saved, name, value):
    """Return `saved` with one entry, or one of its model_state, changed or removed."""
    saved = saved | {"model_state": dict(saved["model_state"])}
    where = saved if name in saved else saved["model_state"]
    where[name] = value
    if value is None:
        del where[name]
    return saved


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model_state", None, "expected a dict model_state, state_mean and state_std"),
        ("state_std", None, "expected a dict model_state, state_mean and state_std"),
        ("model_state", [1], "expected a dict model_state"),
        ("emb_norm.bias", None, "missing.*emb_norm.bias"),
        ("value_head.weight", torch.zeros(2), "unknown.*value_head"),
        (3, torch.zeros(2), "unknown.*3"),
        (
            "emb_norm.bias",
            torch.full([8], torch.nan),
            "emb_norm.bias is empty or has",
        ),
        (
            "emb_norm.bias",
            torch.full([8], 1e300, dtype=torch.float64),
            "has NaN or infinity",
        ),
        ("emb_norm.bias", torch.zeros(0), "emb_norm.bias is empty"),
        ("emb_norm.bias", "zero", "emb_norm.bias is not an array"),
        ("state_mean", np.full(S, np.inf), "state_mean is empty or has NaN"),
        ("state_mean", np.zeros((1, S + 1)), "has 5 numbers and state_std 4, but"),
        ("state_std", np.ones(1), "state_mean has 4 numbers and state_std 1"),
        ("state_std", np.arange(4.0), "state_std has a value that is not positive"),
        (
            "state_emb.weight",
            torch.tensor(1.0),
            "state_emb.weight has 0 axes",
        ),
    ],
)
def test_invalid_content_is_named_in_one_line(saved, path, name, value, message):
    torch.save(changed(saved, name, value), path)
    with pytest.raises(UserError, match=message) as error:
        read_checkpoint(path)
    assert str(path) in one_line(error)


def test_bare_state_dict_is_refused(saved, path):
    torch.save(saved["model_state"], path)
    with pytest.raises(UserError, match="expected a dict model_state"):
        read_checkpoint(path)


def test_missing_pytorch_is_reported_with_its_extra(monkeypatch, path):
    monkeypatch.setattr(common, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'dt_jax\[corl\]'"):
        read_checkpoint(path)
