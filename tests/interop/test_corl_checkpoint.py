"""Reading the dt_checkpoint.pt of CORL's dt.py, written by PyTorch like CORL's."""

import pickle
import zipfile
from functools import partial

import jax
import numpy as np
import pytest
from random_run import S, T, make_config, make_normalizer, random_params

from dt_jax.interop.corl import read_checkpoint, state_dict_from_params
from dt_jax.utils.errors import UserError

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def params():
    return random_params(make_config(), make_normalizer())


@pytest.fixture
def saved(params):
    """The dict that dt.py passes to torch.save."""
    mask = ~torch.tril(torch.ones(3 * T, 3 * T)).to(bool)
    arrays = state_dict_from_params(params)
    state_dict = {name: torch.tensor(array) for name, array in arrays.items()}
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
    equal = partial(np.testing.assert_array_equal, strict=True)
    jax.tree.map(equal, read.params, params)
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


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(saved, path, share):
    torch.save(saved, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=f"{path}.*copy it again"):
        read_checkpoint(path)


@pytest.mark.parametrize("kind", ["text", "pickle", "npz"])
def test_other_file_types_are_refused(path, kind):
    with path.open("wb") as file:
        if kind == "text":
            file.write(b"learning_rate: 0.1\n")
        elif kind == "pickle":
            pickle.dump({"model_state": {}}, file)
        else:
            np.savez(file, a=np.zeros(3))
    with pytest.raises(UserError, match="is not a checkpoint of CORL"):
        read_checkpoint(path)


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
        ("emb_norm.bias", None, "missing.*emb_norm.bias"),
        ("value_head.weight", torch.zeros(2), "unknown.*value_head"),
        (3, torch.zeros(2), "unknown.*3"),
        ("emb_norm.bias", torch.tensor([torch.nan]), "emb_norm.bias is empty or has"),
        ("emb_norm.bias", torch.zeros(0), "emb_norm.bias is empty"),
        ("emb_norm.bias", "zero", "emb_norm.bias is not an array"),
        ("state_mean", np.full(S, np.inf), "state_mean is empty or has NaN"),
        ("state_mean", np.zeros(S + 1), f"expected {S} numbers each"),
        ("state_std", np.zeros(S), "positive ones in state_std"),
    ],
)
def test_invalid_content_is_named_in_one_line(saved, path, name, value, message):
    torch.save(changed(saved, name, value), path)
    with pytest.raises(UserError, match=message) as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_bare_state_dict_is_refused(saved, path):
    torch.save(saved["model_state"], path)
    with pytest.raises(UserError, match="expected a dict model_state"):
        read_checkpoint(path)
