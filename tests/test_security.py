"""Malicious files against the promises of the security sections in docs/."""

import io
import json
import pickle
import re
import urllib.request
import zipfile
import zlib
from urllib.error import URLError
from urllib.parse import urlsplit

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from recording import record
from rich.console import Console
from serving import serving

from dt_jax import envs
from dt_jax.analysis.experiments import data_label
from dt_jax.analysis.tables import evaluation_table
from dt_jax.cli import evaluate
from dt_jax.cli.common import run_command
from dt_jax.config.load import override, to_json, validate
from dt_jax.data import minari
from dt_jax.data.cache import record_sha256, sha256_of
from dt_jax.data.d4rl import read_d4rl, read_env_name
from dt_jax.data.registry import all_specs
from dt_jax.datasets import download
from dt_jax.datasets import load as datasets
from dt_jax.runs import manifest
from dt_jax.runs.checkpoint import CheckpointWriter
from dt_jax.runs.evaluations import Evaluation
from dt_jax.utils.errors import UserError
from dt_jax.utils.files import replacing

ROWS = 1024
CHUNK = 128 * ROWS


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, victim):
        self.victim = str(victim)

    def __reduce__(self):
        return open, (self.victim, "w")


@pytest.fixture
def victim(tmp_path):
    """A file that is there if a pickle was run, or a path was left."""
    path = tmp_path / "victim"
    pickle.loads(pickle.dumps(Evil(path))).close()
    assert path.exists()  # else the tests would show nothing
    path.unlink()
    yield path
    assert not path.exists()


def arrays(**changed):
    """Return a dataset's arrays."""
    whole = {
        "observations": np.zeros((ROWS, 3), np.float32),
        "actions": np.zeros((ROWS, 2), np.float32),
        "rewards": np.zeros(ROWS, np.float32),
        "terminals": np.arange(ROWS) % 8 == 7,
        "timeouts": np.zeros(ROWS, bool),
    }
    return whole | changed


def hdf5(path, **changed):
    """Write a dataset of which some arrays are left out, by None, or are others."""
    with h5py.File(path, "w") as file:
        for key, array in arrays(**changed).items():
            if array is not None:
                file[key] = array
    return path


# Nothing that is loaded is run.


@pytest.mark.parametrize("key", ["observations", "terminals", "episode_ends"])
def test_an_npz_is_not_unpickled(tmp_path, victim, key):
    path = tmp_path / "data.npz"
    evil = np.array([Evil(victim)] * ROWS, object)
    changed = {key: evil}
    whole = arrays(**changed)
    if key == "episode_ends":
        del whole["timeouts"]
    np.savez(path, **whole)
    with pytest.raises(UserError, match=key):
        read_d4rl(path)
    np.savez(path, **arrays(infos=evil))  # nobody looks at it
    assert len(read_d4rl(path).rewards) == ROWS


def test_an_evaluation_is_not_unpickled(tmp_path, victim):
    path = tmp_path / "10.npz"
    evil = np.array([Evil(victim)], object)
    np.savez(path, target_returns=evil, seeds=evil, returns=evil, lengths=evil)
    with pytest.raises(UserError, match=r"10\.npz"):
        Evaluation.load(path)


def test_a_checkpoint_is_not_unpickled(tmp_path, victim, monkeypatch):
    folder = tmp_path / "checkpoints"
    params = {"kernel": jnp.zeros((3, 2))}
    with CheckpointWriter(folder, keep=2) as writer:
        writer.save(1, params, {"step": jnp.int32(1)}, {"state_mean": [0.0]}, None)
    with monkeypatch.context() as patch:
        for name in ("load", "loads", "Unpickler"):
            patch.delattr(pickle, name)
        chosen = choose_checkpoint(folder, "last")
        assert chosen.record["state_mean"] == [0.0]
        assert not chosen.params(params)["kernel"].any()
    (folder / "1/record/metadata").write_bytes(pickle.dumps(Evil(victim)))
    manifest.write(folder, 1, None)
    with pytest.raises(Exception, match="decode"):
        choose_checkpoint(folder, "last").record


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """The folder of a Minari dataset."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    record("Pendulum-v1", "safe-v0", (3,))
    return tmp_path / "minari/safe-v0/data"


def name_environment(folder, **changed):
    """Change what a dataset says of its environment."""
    file = folder / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["eval_env_spec"] = json.dumps(json.loads(metadata["env_spec"]) | changed)
    file.write_text(json.dumps(metadata))


def test_a_minari_dataset_calls_only_environments_that_are_known(
    recorded, victim, monkeypatch
):
    def played():
        spec = envs.lookup("minari:safe-v0")
        return envs.make(spec, [0])

    assert played()
    (recorded / "code.py").write_text(f"open({str(victim)!r}, 'w')")
    monkeypatch.syspath_prepend(recorded.parents[1])  # as where python -m is started
    video = {"name": "Video", "entry_point": "gymnasium.wrappers:RecordVideo"}
    video["kwargs"] = {"video_folder": str(victim)}
    opens = {"entry_point": "builtins:open", "kwargs": {"file": str(victim)}}
    opens["kwargs"]["mode"] = "w"
    imports = {"entry_point": "safe-v0.data.code:Env"}
    for changed in (opens, imports, {"additional_wrappers": [video]}):
        name_environment(recorded, **changed)
        with pytest.raises(UserError, match="unknown here and is not called"):
            played()
        name_environment(recorded, **changed)


def test_a_run_imports_only_what_its_user_names(
    small_config, tmp_path, victim, monkeypatch
):
    """Its folder may lie where `python -m` looks for packages."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "code.py").write_text(f"open({str(victim)!r}, 'w')")
    with small_config.unlocked():
        small_config.env_name = "run.code:Hopper-v5"
    (run / "config.json").write_text(to_json(small_config))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="trust it, give --env_name=run"):
        evaluate.main([str(run)])


# Names and files stay where they belong.


@pytest.mark.parametrize("dataset_id", ["../outside-v0", "a/../../b-v0", "/outside-v0"])
def test_the_name_of_a_minari_dataset_stays_in_minaris_folder(recorded, dataset_id):
    recorded.parent.rename(recorded.parents[2] / "outside-v0")
    if dataset_id.startswith("/"):
        dataset_id = str(recorded.parents[2] / "outside-v0")
    with pytest.raises(UserError, match=r"begins with no / and has no \.\. in it"):
        minari.open_dataset(f"minari:{dataset_id}")


def test_the_name_of_a_dataset_or_a_run_is_no_path(small_config, tmp_path, monkeypatch):
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path))
    for spec in all_specs().values():
        assert datasets.cached_path(spec).parent == tmp_path
        assert spec.url is None or urlsplit(spec.url).scheme in ("http", "https")
    for name in ("../run", "/run", "a/b", "..", "a\\b"):
        with pytest.raises(UserError, match="without a path"):
            override(small_config, "name", name)
    override(small_config, "data_path", "None")
    override(small_config, "env_name", "../../hopper-demo")
    with pytest.raises(UserError, match="unknown env_name"):
        validate(small_config)


def test_the_names_in_an_archive_are_no_paths(tmp_path, victim):
    path = tmp_path / "folder/data.npz"
    path.parent.mkdir()
    np.savez(path, **arrays(), **{"../victim": np.zeros(3), str(victim): np.zeros(3)})
    assert len(read_d4rl(path).rewards) == ROWS
    assert [*tmp_path.rglob("*")] == [path.parent, path]


def elsewhere(file, key, other):
    """Put into an HDF5 file what lies in other files, in each way that there is."""
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
    """A file with somebody's rewards, which is read in the way its suffix tells."""
    path = tmp_path / request.param
    path.write_bytes(bytes(4 * ROWS))
    return path if path.suffix == ".bin" else hdf5(path)


def test_an_hdf5_file_reads_no_other_files(tmp_path, other):
    path = hdf5(tmp_path / "data.hdf5", rewards=None)
    with h5py.File(path, "a") as file:
        elsewhere(file, "rewards", other)
    with pytest.raises(UserError, match="rewards lies in other files"):
        read_d4rl(path)


def test_a_minari_dataset_reads_no_other_files(recorded, other):
    with h5py.File(recorded / "main_data.hdf5", "a") as file:
        del file["episode_0/rewards"]
        elsewhere(file["episode_0"], "rewards", other)
    with pytest.raises(UserError, match="rewards lies in other files"):
        list(minari.episodes(minari.open_dataset("minari:safe-v0")))


# Sizes are bounded before anything of them is taken.


def chunked(path, packed, *filters):
    """Write rewards of one chunk that is packed so."""
    with h5py.File(hdf5(path, rewards=None), "a") as file:
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((CHUNK,))
        for add in filters:
            getattr(created, add)(*([9] if add == "set_deflate" else []))
        space = h5py.h5s.create_simple((ROWS,), (h5py.h5s.UNLIMITED,))
        kind = h5py.h5t.NATIVE_DOUBLE
        array = h5py.h5d.create(file.id, b"rewards", kind, space, created)
        array.write_direct_chunk((0,), packed)
    return path


def zeros_packed(megabytes):
    packer, block = zlib.compressobj(9), bytes(1 << 20)
    blocks = [
        packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    ]
    return blocks[0] + megabytes * blocks[1]


@pytest.mark.parametrize("shuffle", [(), ("set_shuffle",)])
def test_a_chunk_does_not_unpack_to_more_than_it_is(tmp_path, shuffle):
    filters = (*shuffle, "set_deflate")
    good = chunked(tmp_path / "1.hdf5", zlib.compress(bytes(8 * CHUNK)), *filters)
    assert len(read_d4rl(good).rewards) == ROWS
    bad = chunked(tmp_path / "2.hdf5", zeros_packed(megabytes=600), *filters)
    assert bad.stat().st_size < 2**20
    with pytest.raises(UserError, match="unpacks to more than it is"):
        read_d4rl(bad)


def test_nothing_is_unpacked_twice(tmp_path, recorded):
    packed = zlib.compress(zlib.compress(bytes(8 * CHUNK)))
    bad = chunked(tmp_path / "2.hdf5", packed, "set_deflate", "set_deflate")
    with pytest.raises(UserError, match="compressed more than once"):
        read_d4rl(bad)
    (recorded / "main_data.hdf5").write_bytes(bad.read_bytes())
    with pytest.raises(UserError, match="compressed more than once"):
        list(minari.episodes(minari.open_dataset("minari:safe-v0")))


def test_an_hdf5_file_holds_what_it_announces(tmp_path):
    path = hdf5(tmp_path / "data.hdf5", rewards=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", (10**12,), "f4", chunks=(ROWS,))
        del file["terminals"], file["timeouts"]
        for key in ("terminals", "timeouts"):
            file.create_dataset(key, (10**12,), "?", chunks=(ROWS,))
        for key in ("observations", "actions"):
            del file[key]
            file.create_dataset(key, (10**12, 2), "f4", chunks=(ROWS, 2))
    with pytest.raises(UserError, match="not what was written"):
        read_d4rl(path)


def npy(shape, content=b""):
    """Return a .npy that announces `shape`."""
    header, file = (
        {"descr": "<f4", "fortran_order": False, "shape": shape},
        io.BytesIO(),
    )
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


@pytest.mark.parametrize("read", [read_d4rl, Evaluation.load])
def test_an_npz_holds_what_it_announces(tmp_path, read):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for key in ("rewards", "terminals", "timeouts", "returns"):
            file.writestr(f"{key}.npy", npy((10**12,)))
        for key in ("observations", "actions"):
            file.writestr(f"{key}.npy", npy((10**12, 2)))
    with pytest.raises(UserError, match="not what the archive holds"):
        read(path)


def test_an_npz_is_packed_as_numpy_does(tmp_path):
    """Python unpacks the others without a bound."""
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("rewards.npy", npy((ROWS,), bytes(4 * ROWS)))
    with pytest.raises(UserError, match=r"rewards\.npy is not packed as NumPy does"):
        read_d4rl(path)


def test_a_minari_dataset_holds_what_it_announces(recorded):
    file = recorded / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"total_steps": 10**12}))
    with pytest.raises(UserError, match="total_steps is 1000000000000"):
        minari.open_dataset("minari:safe-v0")


# What is known of a file is checked.


def test_a_recorded_sha256_is_checked(tmp_path):
    path = hdf5(tmp_path / "data.hdf5")
    record_sha256(path, sha256_of(path))
    assert datasets.load(None, str(path)).sha256 == sha256_of(path)
    hdf5(path, rewards=np.ones(ROWS, np.float32))
    with pytest.raises(UserError, match="is not the file that was downloaded"):
        datasets.load(None, str(path))


def test_what_was_unpacked_is_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path / "cache"))
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **arrays())
    for _ in range(2):
        assert not read_d4rl(path, memory_limit_gb=0).observations.any()
        (unpacked,) = (tmp_path / "cache/unpacked").glob("*-observations.npy")
        np.save(unpacked, np.ones((ROWS, 3), np.float32))


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/data.hdf5"])
def test_a_download_is_led_to_nothing_but_http(tmp_path, target):
    def lead(handler):
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    path = tmp_path / "data.hdf5"
    with serving(b"") as server:
        server.usual = lead
        with pytest.raises(UserError, match="could not be downloaded"):
            download.download(server.url, path, check=read_d4rl)
    assert not path.exists()


def test_a_download_by_https_stays_there():
    asked = urllib.request.Request("https://host/data.hdf5")
    answer = io.BytesIO(), 302, "Found", {}
    redirects = download._Redirects()
    assert redirects.redirect_request(asked, *answer, "https://other/data.hdf5")
    with pytest.raises(URLError, match="not followed"):
        redirects.redirect_request(asked, *answer, "http://other/data.hdf5")


# What is shown and what is written.

STEERING = "\x1b[2J\x1b]0;title\x07\x9b31m\u202edemo"
WRITTEN_OUT = r"\x1b[2J\x1b]0;title\x07\x9b31m\u202edemo"


def test_text_from_outside_cannot_steer_the_terminal(tmp_path, capsys):
    path = hdf5(tmp_path / "data.hdf5")
    with h5py.File(path, "a") as file:
        file.attrs["env_name"] = STEERING
    assert read_env_name(path) == WRITTEN_OUT

    def fail():
        raise UserError(STEERING)

    with pytest.raises(SystemExit):
        run_command(fail, "test")
    download._tell(STEERING)
    shown = capsys.readouterr().err
    assert shown.count(WRITTEN_OUT.removeprefix(r"\x1b[2J")) == 2
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
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        assert first.parent == second.parent == tmp_path
        for temporary in (first, second):
            assert re.fullmatch(r"\.config\.[0-9a-f]{8}\.tmp\.json", temporary.name)
            temporary.touch()
