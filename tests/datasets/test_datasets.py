import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import dt_jax.datasets.demo
from dt_jax.data import registry
from dt_jax.data.schema import RawData
from dt_jax.datasets import cached_path, find_dataset, load, read_dataset
from dt_jax.utils.errors import UserError

HOPPER = registry.lookup("hopper-medium-v2")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("DT_JAX_DATA", str(folder))
    return folder


@pytest.fixture
def refuse(monkeypatch):
    """Fail if something is collected or downloaded."""

    def fail(*arguments, **options):
        raise AssertionError("downloaded or collected an existing file")

    monkeypatch.setattr(load, "download", fail)
    monkeypatch.setattr(dt_jax.datasets.demo, "collect_demo", fail, raising=False)


def hopper(raw: RawData) -> RawData:
    """Return `raw` with observations and actions of hopper's sizes."""
    rows = len(raw.rewards)
    return raw._replace(
        observations=np.ones((rows, 11), np.float32),
        actions=np.ones((rows, 3), np.float32),
    )


def test_data_path_takes_precedence_over_env_name(refuse):
    assert find_dataset(HOPPER, "my.hdf5").name == "my.hdf5"
    assert find_dataset(None, "my.hdf5").name == "my.hdf5"


def test_missing_data_is_reported():
    with pytest.raises(UserError, match="set env_name or data_path"):
        find_dataset(None, None)
    spec = replace(HOPPER, name="Pendulum-v1", url=None)
    with pytest.raises(UserError, match="Pendulum-v1 comes without data: set data_pa"):
        find_dataset(spec, None)
    with pytest.raises(UserError, match=r"no such file: ~nobody9/x\.hdf5"):
        read_dataset(None, "~nobody9/x.hdf5")


def test_d4rl_file_is_downloaded_once(cache, monkeypatch):
    requested = []

    def pretend(url, path, check):
        requested.append(url)
        path.parent.mkdir(parents=True)
        path.write_text("<html>")  # a login page
        with pytest.raises(UserError, match="corrupt, or not an HDF5"):
            check(path)

    monkeypatch.setattr(load, "download", pretend)
    for _ in range(2):
        path = find_dataset(HOPPER, None)
        assert path == cache / "hopper_medium-v2.hdf5"
    assert requested == [HOPPER.url]


def test_failed_download_suggests_demo_data(monkeypatch):
    def fail(url, path, check):
        raise UserError(f"{url}: download failed")

    monkeypatch.setattr(load, "download", fail)
    message = r"v2.hdf5: download failed, or train on .*hopper.py:demo$"
    with pytest.raises(UserError, match=message):
        find_dataset(HOPPER, None)
    with pytest.raises(UserError, match=r"pen.*: download failed$"):  # without a demo
        find_dataset(registry.lookup("pen-human-v1"), None)


def test_demo_is_collected_once(cache, monkeypatch):
    requested = []

    def pretend(env_name, out):
        requested.append(env_name)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.touch()

    monkeypatch.setattr(dt_jax.datasets.demo, "collect_demo", pretend, raising=False)
    for _ in range(2):
        path = find_dataset(registry.lookup("hopper-demo"), None)
        assert path == cache / "hopper-demo.hdf5"
    assert requested == ["hopper-demo"]


def test_two_processes_collect_a_demo_once(cache, monkeypatch, capfd):
    monkeypatch.setitem(dt_jax.datasets.demo._STEPS, "maze2d", 4_000)
    spec = registry.lookup("maze2d-umaze-demo")
    with ThreadPoolExecutor() as pool:  # the lock separates threads like processes
        paths = list(pool.map(lambda _: find_dataset(spec, None), range(2)))
    assert paths == [cache / "maze2d-umaze-demo.hdf5"] * 2
    assert list(cache.iterdir()) == paths[:1]
    stderr = capfd.readouterr().err
    assert stderr.count("collecting 4,000 transitions") == 1
    assert stderr.count(f"another process is collecting {paths[0]}") == 1


def test_datasets_have_different_files_in_the_cache():
    specs = registry.all_specs().values()
    assert len({cached_path(spec) for spec in specs}) == len(specs)


def test_identity_describes_the_file(raw, write_hdf5):
    path = write_hdf5(hopper(raw))
    dataset = read_dataset(HOPPER, str(path), episode_len=1000)
    identity = dataset.identity()
    histogram = identity.pop("return_histogram")
    assert identity == {
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "num_transitions": 66,
        "num_trajectories": 8,
        "dropped_tail": 5,
        "return_mean": float(dataset.trajectories.episode_returns.mean(dtype=float)),
        "return_best": float(dataset.trajectories.episode_returns.max()),
    }
    assert json.loads(json.dumps(dataset.identity())) == dataset.identity()
    returns = dataset.trajectories.episode_returns.astype(float)
    counts, edges = np.histogram(returns, bins=50)
    assert histogram == {"edges": edges.tolist(), "counts": counts.tolist()}


def test_source_of_a_cached_file_is_its_name(raw, write_hdf5, cache, refuse):
    cache.mkdir()
    write_hdf5(hopper(raw)).rename(cache / "hopper_medium-v2.hdf5")
    dataset = read_dataset(HOPPER, None, episode_len=1000)
    assert dataset.source == "hopper_medium-v2.hdf5"


def test_file_of_another_environment_is_refused(raw, write_hdf5):
    path = write_hdf5(hopper(raw))
    with pytest.raises(UserError, match=rf"{path}: .* the environment's 17 and 6"):
        read_dataset(registry.lookup("halfcheetah-medium-v2"), str(path))
    dataset = read_dataset(None, str(path))  # not checked
    assert dataset.trajectories.observations.shape == (66, 11)


def test_demo_files_are_recognised_by_content(tmp_path):
    demo = tmp_path / "mine.hdf5"
    dt_jax.datasets.demo.collect_demo("maze2d-umaze-demo", demo, steps=600)
    umaze = registry.lookup("maze2d-umaze-v1")
    dataset = read_dataset(umaze, str(demo), episode_len=300)
    assert dataset.source == f"{demo} (maze2d-umaze-demo)"
    with pytest.raises(UserError, match=r"set env_name=maze2d-umaze-demo"):
        read_dataset(registry.lookup("maze2d-large-v1"), str(demo), episode_len=800)
