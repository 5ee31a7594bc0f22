"""Malicious files against the promises of the security sections in docs/."""

import io
import json
import pickle
import re
from urllib.parse import urlsplit

import h5py
import jax
import numpy as np
import pytest
from random_run import write_random_run
from recording import record
from rich.console import Console
from serving import redirect, serving

from dt_jax import envs
from dt_jax.analysis.experiments import data_label
from dt_jax.analysis.tables import evaluation_table
from dt_jax.cli import evaluate
from dt_jax.cli.common import run_command
from dt_jax.config.load import override, validate
from dt_jax.data import minari
from dt_jax.data.cache import record_sha256, sha256_of
from dt_jax.data.d4rl import read_d4rl, read_env_name
from dt_jax.data.registry import all_specs
from dt_jax.datasets import cached_path, read_dataset
from dt_jax.datasets.load import download
from dt_jax.runs.checkpoint import choose_checkpoint
from dt_jax.runs.evaluations import Evaluation
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import atomic_write

ROWS = 1024


def arrays(**changed):
    """Return the arrays of a dataset."""
    whole = {
        "observations": np.zeros((ROWS, 3), np.float32),
        "actions": np.zeros((ROWS, 2), np.float32),
        "rewards": np.zeros(ROWS, np.float32),
        "terminals": np.arange(ROWS) % 8 == 7,
        "timeouts": np.zeros(ROWS, bool),
    }
    return whole | changed


def hdf5(path, **changed):
    """Write a dataset with changed arrays; None omits one."""
    with h5py.File(path, "w") as file:
        for key, array in arrays(**changed).items():
            if array is not None:
                file[key] = array
    return path


# Loading executes no code.


@pytest.mark.parametrize("key", ["observations", "terminals", "episode_ends"])
def test_npz_is_not_unpickled(tmp_path, evil, key):
    path = tmp_path / "data.npz"
    objects = np.array([evil] * ROWS, object)
    whole = arrays(**{key: objects})
    if key == "episode_ends":
        del whole["timeouts"]
    np.savez(path, **whole)
    with pytest.raises(UserError, match=key):
        read_d4rl(path)
    np.savez(path, **arrays(infos=objects))  # an array that is not read
    assert len(read_d4rl(path).rewards) == ROWS


def test_evaluation_is_not_unpickled(tmp_path, evil):
    path, keys = tmp_path / "10.npz", ("target_returns", "seeds", "returns", "lengths")
    np.savez(path, **dict.fromkeys(keys, np.array([evil], object)))
    with pytest.raises(UserError, match=r"10\.npz"):
        Evaluation.load(path)


def test_a_checkpoint_is_not_unpickled(tmp_path, evil, monkeypatch):
    run = tmp_path / "run"
    params = write_random_run(run)
    folder = run / "checkpoints"
    with monkeypatch.context() as patch:
        for name in ("load", "loads", "Unpickler"):
            patch.delattr(pickle, name)
        chosen = choose_checkpoint(folder, "last")
        restored = chosen.params(jax.eval_shape(lambda: params))
    jax.tree.map(np.testing.assert_array_equal, restored, params)
    (folder / "7.json").write_bytes(pickle.dumps(evil))
    with (
        pytest.warns(UserWarning, match="its manifest 7.json is damaged"),
        pytest.raises(UserError, match=r"every checkpoint in .* is corrupt"),
    ):
        choose_checkpoint(folder, "last")


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """The folder of a Minari dataset."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    record("Pendulum-v1", "safe-v0", (3,))
    return tmp_path / "minari/safe-v0/data"


def name_environment(folder, **changed):
    """Change the environment in a dataset's metadata."""
    file = folder / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["eval_env_spec"] = json.dumps(json.loads(metadata["env_spec"]) | changed)
    file.write_text(json.dumps(metadata))


def test_minari_datasets_call_only_known_environments(recorded, evil, monkeypatch):
    def make():
        spec = envs.lookup("minari:safe-v0")
        return envs.make(spec, [0])

    assert make()
    victim = str(evil.victim)
    (recorded / "code.py").write_text(f"open({victim!r}, 'w')")
    monkeypatch.syspath_prepend(recorded.parents[1])  # like python -m
    opens = {"entry_point": "builtins:open", "kwargs": {"file": victim, "mode": "w"}}
    imports = {"entry_point": "safe-v0.data.code:Env"}
    wrapper = opens | {"name": "Wrapper"}
    for changed in (opens, imports, {"additional_wrappers": [wrapper]}):
        name_environment(recorded, **changed)
        with pytest.raises(UserError, match="is unknown and is not called"):
            make()


def test_a_run_imports_only_what_its_user_names(tmp_path, evil, monkeypatch):
    """Its folder may be where `python -m` looks for packages."""
    run = tmp_path / "run"
    write_random_run(run, env_name="run.code:Hopper-v5")
    (run / "code.py").write_text(f"open({str(evil.victim)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="trust it, give --env_name=run"):
        evaluate.main([str(run), "--target_returns=3", "--episodes=1"])


# Names and paths stay in their folders.


@pytest.mark.parametrize("dataset_id", ["../outside-v0", "a/../../b-v0", "/outside-v0"])
def test_minari_ids_stay_in_minaris_folder(recorded, dataset_id):
    recorded.parent.rename(recorded.parents[2] / "outside-v0")
    if dataset_id.startswith("/"):
        dataset_id = str(recorded.parents[2] / "outside-v0")
    with pytest.raises(UserError, match=r"must not begin with / or contain \.\."):
        minari.open_dataset(f"minari:{dataset_id}")


def test_names_of_datasets_and_runs_are_not_paths(small_config, tmp_path, monkeypatch):
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path))
    for spec in all_specs().values():
        assert cached_path(spec).parent == tmp_path
        assert spec.url is None or urlsplit(spec.url).scheme in ("http", "https")
    for name in ("../run", "/run", "a/b", "..", "a\\b"):
        with pytest.raises(UserError, match="without a path"):
            override(small_config, "name", name)
    override(small_config, "data_path", "None")
    override(small_config, "env_name", "../../hopper-demo")
    with pytest.raises(UserError, match="Malformed environment ID"):
        validate(small_config)


def test_names_in_an_archive_are_not_paths(tmp_path, evil):
    path = tmp_path / "folder/data.npz"
    path.parent.mkdir()
    outside = dict.fromkeys(("../victim", str(evil.victim)), np.zeros(3))
    np.savez(path, **arrays(), **outside)
    assert len(read_d4rl(path).rewards) == ROWS
    assert [*tmp_path.rglob("*")] == [path.parent, path]


def add_reference(file, key, other):
    """Add a dataset that is stored in another file, in each possible way."""
    if other.suffix == ".bin":
        space = h5py.h5s.create_simple((ROWS,))
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_external(bytes(other), 0, 4 * ROWS)
        h5py.h5d.create(file.id, key.encode(), h5py.h5t.IEEE_F32LE, space, created)
    elif other.suffix == ".hdf5":
        file[key] = h5py.ExternalLink(str(other), "rewards")
    else:
        layout = h5py.VirtualLayout((ROWS,), np.float32)
        layout[:] = h5py.VirtualSource(str(other), "rewards", (ROWS,))
        file.create_virtual_dataset(key, layout)


@pytest.fixture(params=["other.bin", "other.hdf5", "other.h5"])
def other(request, tmp_path):
    """Another file with rewards; its suffix selects how it is referenced."""
    path = tmp_path / request.param
    path.write_bytes(bytes(4 * ROWS))
    return path if path.suffix == ".bin" else hdf5(path)


def test_hdf5_files_read_no_other_files(tmp_path, other):
    path = hdf5(tmp_path / "data.hdf5", rewards=None)
    with h5py.File(path, "a") as file:
        add_reference(file, "rewards", other)
    with pytest.raises(UserError, match="rewards is stored in another file"):
        read_d4rl(path)


def test_minari_datasets_read_no_other_files(recorded, other):
    with h5py.File(recorded / "main_data.hdf5", "a") as file:
        del file["episode_0/rewards"]
        add_reference(file["episode_0"], "rewards", other)
    with pytest.raises(UserError, match="rewards is stored in another file"):
        list(minari.episodes(minari.open_dataset("minari:safe-v0")))


# Recorded checksums are verified.


def test_recorded_sha256_is_verified(tmp_path):
    path = hdf5(tmp_path / "data.hdf5")
    record_sha256(path, sha256_of(path))
    assert read_dataset(None, str(path)).sha256 == sha256_of(path)
    hdf5(path, rewards=np.ones(ROWS, np.float32))
    with pytest.raises(UserError, match="is not the file that was downloaded"):
        read_dataset(None, str(path))


def test_unpacked_arrays_are_verified(tmp_path, monkeypatch):
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path / "cache"))
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **arrays())
    for _ in range(2):
        assert not read_d4rl(path, memory_limit_gb=0).observations.any()
        (unpacked,) = (tmp_path / "cache/unpacked").glob("*-observations.npy")
        np.save(unpacked, np.ones((ROWS, 3), np.float32))


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/data.hdf5"])
def test_download_is_redirected_only_to_http(tmp_path, monkeypatch, target):
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    path = tmp_path / "data.hdf5"
    with serving(b"") as server:
        server.usual = redirect(target)
        with pytest.raises(UserError, match="No connection adapters were found"):
            download(server.url, path, check=read_d4rl)
    assert not path.exists()


# What is shown and what is written.

STEERING = "\x1b[2J\x1b]0;title\x07\x9b31m\u202edemo"
WRITTEN_OUT = r"\x1b[2J\x1b]0;title\x07\x9b31m\u202edemo"


def test_untrusted_text_cannot_control_the_terminal(tmp_path, capsys, monkeypatch):
    path = hdf5(tmp_path / "data.hdf5")
    with h5py.File(path, "a") as file:
        file.attrs["env_name"] = STEERING
    assert read_env_name(path) == WRITTEN_OUT

    def fail():
        raise UserError(STEERING)

    # Its handlers would stay, and end this process at the second signal of other tests.
    monkeypatch.setattr("dt_jax.cli.common.exit_on_signals", lambda leave: None)
    with pytest.raises(SystemExit):
        run_command(fail, "test")
    shown = capsys.readouterr().err
    assert shown.count(WRITTEN_OUT) == 1
    assert shown.replace("\n", "").isprintable()
    label = data_label({"env_name": None, "data_path": ""}, {"source": STEERING}, None)
    assert label == WRITTEN_OUT


def test_text_from_outside_is_no_markup():
    played = Evaluation(np.ones(1), np.ones(1), np.ones((1, 2)), np.ones((1, 2)))
    console = Console(file=io.StringIO(), width=80)
    console.print(evaluation_table(played, "[link=file:///]runs[/link]").rich())
    assert "[link=file:///]runs[/link]" in console.file.getvalue()


def test_temporary_files_have_names_that_nobody_knows(tmp_path):
    path = tmp_path / "config.json"
    with atomic_write(path) as first, atomic_write(path) as second:
        assert first != second
        assert first.parent == second.parent == tmp_path
        for temporary in (first, second):
            assert re.fullmatch(r"\.config\.[0-9a-f]{8}\.tmp\.json", temporary.name)
            temporary.touch()
