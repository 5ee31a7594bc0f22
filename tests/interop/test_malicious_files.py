"""Malicious checkpoints of other programs: nothing in them is executed."""

import struct
import zipfile

import numpy as np
import pytest
import yaml
from random_run import export_run, import_run, write_random_run
from safetensors.numpy import load_file

from dt_jax.interop import common
from dt_jax.interop.corl import read_checkpoint, read_config
from dt_jax.utils.errors import UserError


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def replace_pickle(path, program):
    """Replace the pickle in a file of PyTorch."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, program if name.endswith("data.pkl") else content)


def opcodes(*parts):
    """Return a pickle: bytes are opcodes, "a.b" loads a global, ("a",) a string."""
    program = b"\x80\x02"
    for part in parts:
        if isinstance(part, bytes):
            program += part
        elif isinstance(part, str):
            module, _, name = part.rpartition(".")
            program += f"c{module}\n{name}\n".encode()
        else:
            encoded = part[0].encode()
            program += b"X" + struct.pack("<I", len(encoded)) + encoded
    return program + b"."


def test_corl_checkpoint_is_not_unpickled(tmp_path, evil, torch):
    path = tmp_path / "dt_checkpoint.pt"
    array = np.array([evil], object)
    for state_mean in (evil, array):
        saved = {"model_state": {}, "state_mean": state_mean, "state_std": array}
        torch.save(saved, path)
        with pytest.raises(UserError, match="more than arrays"):
            read_checkpoint(path)


def test_bytes_in_a_checkpoint_do_not_become_objects(tmp_path, torch):
    """numpy.ndarray takes any bytes as the addresses of objects."""
    called = []

    class Spy:
        def __iter__(self):
            called.append("called")
            return iter("ab")

    spy = Spy()
    address = struct.pack("<Q", id(spy))
    assert dict(np.ndarray((1,), object, address)) == {"a": "b"}
    assert called.pop()  # the attack works

    array = (
        *("numpy.ndarray", b"(K\x01\x85"),  # of shape (1,)
        *("numpy.dtype", ("O",), b"\x85R"),
        *("_codecs.encode", (address.decode("latin1"),), ("latin1",), b"\x86RtR"),
    )
    path = tmp_path / "dt_checkpoint.pt"
    torch.save({}, path)
    replace_pickle(path, opcodes("collections.OrderedDict", *array, b"\x85R"))
    with pytest.raises(UserError, match="more than arrays"):
        read_checkpoint(path)
    assert not called


@pytest.mark.parametrize("name", ["O", "V8", "U4"])
def test_arrays_in_a_checkpoint_hold_only_floats(tmp_path, torch, name):
    path = tmp_path / "dt_checkpoint.pt"
    torch.save({}, path)
    replace_pickle(path, opcodes("numpy.dtype", (name,), b"\x85R"))
    with pytest.raises(UserError, match="more than arrays"):
        read_checkpoint(path)


def test_float_type_in_a_checkpoint_cannot_be_changed(tmp_path, torch):
    """A state with other flags would make NumPy take floats for objects."""
    state = (b"(K\x03", ("<",), b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb")
    dtype = ("numpy.dtype", ("f4",), b"\x89\x88\x87R", *state)  # copy=True
    path = tmp_path / "dt_checkpoint.pt"
    torch.save({}, path)
    replace_pickle(path, opcodes(b"}", ("dtype",), *dtype, b"s"))
    changed = np.dtype("f4", False, True)
    changed.__setstate__((3, "<", None, None, None, -1, -1, 0x3F))
    assert changed.flags == 0x3F  # the attack works
    loaded = common.load_torch(path, "corl", "a checkpoint")
    assert loaded["dtype"].flags == np.dtype("f4").flags == 0


def test_old_pytorch_is_not_used(tmp_path, monkeypatch, torch):
    """Before 2.6 a file could execute code in spite of weights_only."""
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.5.1"))
    with pytest.raises(UserError, match=r"needs PyTorch 2\.6 or newer"):
        read_checkpoint(tmp_path / "dt_checkpoint.pt")


def test_weights_of_hugging_face_are_not_unpickled(tmp_path, evil, torch):
    write_random_run(tmp_path / "run")
    folder = tmp_path / "hf"
    export_run(tmp_path / "run", "hf", folder)
    arrays = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    torch.save(tensors | {"more": evil}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="more than arrays"):
        import_run(folder, "hf", tmp_path / "imported")
    assert not (tmp_path / "imported").exists()


def test_config_yaml_creates_no_objects(tmp_path, evil):
    path = tmp_path / "config.yaml"
    path.write_text(f"num_heads: !!python/object/apply:open [{evil.victim}, w]\n")
    yaml.unsafe_load(path.read_text())["num_heads"].close()
    evil.victim.unlink()  # it exists: otherwise the test proves nothing
    with pytest.raises(UserError, match=r"is not a config\.yaml of CORL"):
        read_config(path)
