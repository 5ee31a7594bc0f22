import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import dt_jax.datasets.demo
from dt_jax.data import registry
from dt_jax.data.schema import RawData
from dt_jax.datasets import load as datasets
from dt_jax.utils.errors import UserError

HOPPER = registry.lookup("hopper-medium-v2")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("DT_JAX_DATA", str(folder))
    return folder


@pytest.fixture
def refuse(monkeypatch):
    """Fail when something is collected or downloaded."""

    def fail(*arguments, **options):
        raise AssertionError("fetched what is there already")

    monkeypatch.setattr(datasets, "download", fail)
    monkeypatch.setattr(dt_jax.datasets.demo, "collect_demo", fail, raising=False)


def hopper(raw: RawData) -> RawData:
    """Return `raw` with observations and actions of the sizes of hopper."""
    rows = len(raw.rewards)
    return raw._replace(
        observations=np.ones((rows, 11), np.float32),
        actions=np.ones((rows, 3), np.float32),
    )


def test_data_path_wins_over_env_name(refuse):
    assert datasets.find(HOPPER, "my.hdf5").name == "my.hdf5"
    assert datasets.find(None, "my.hdf5").name == "my.hdf5"


def test_neither_name_nor_path():
    with pytest.raises(UserError, match=r"give env_name or data_path"):
        datasets.find(None, None)


def test_an_environment_without_data_of_its_own():
    spec = replace(HOPPER, name="Pendulum-v1", url=None)
    with pytest.raises(UserError, match=r"Pendulum-v1: give data_path"):
        datasets.find(spec, None)


def test_d4rl_file_is_downloaded_once(cache, monkeypatch):
    asked = []

    def pretend(url, path, check):
        asked.append(url)
        path.parent.mkdir(parents=True)
        path.write_text("<html>")  # as a page that stands in the way
        with pytest.raises(UserError, match="or is damaged"):
            check(path)

    monkeypatch.setattr(datasets, "download", pretend)
    for _ in range(2):
        path = datasets.find(HOPPER, None)
        assert path == cache / "hopper_medium-v2.hdf5"
    assert asked == [HOPPER.url]


def test_demo_is_collected_once(cache, monkeypatch):
    asked = []

    def pretend(env_name, out):
        asked.append(env_name)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.touch()

    monkeypatch.setattr(dt_jax.datasets.demo, "collect_demo", pretend, raising=False)
    for _ in range(2):
        path = datasets.find(registry.lookup("hopper-demo"), None)
        assert path == cache / "hopper-demo.hdf5"
    assert asked == ["hopper-demo"]


def test_two_at_once_collect_a_demo_once(cache, monkeypatch, capfd):
    monkeypatch.setitem(dt_jax.datasets.demo.demo._STEPS, "maze2d", 4_000)
    spec = registry.lookup("maze2d-umaze-demo")
    with ThreadPoolExecutor() as pool:  # the lock keeps threads apart as processes
        paths = list(pool.map(lambda _: datasets.find(spec, None), range(2)))
    assert paths == [cache / "maze2d-umaze-demo.hdf5"] * 2
    assert list(cache.iterdir()) == paths[:1]
    told = capfd.readouterr().err
    assert told.count("collecting 4,000 transitions") == 1
    assert told.count(f"another process is collecting {paths[0]}; waiting for it") == 1


def test_no_two_names_share_a_file_in_the_cache(refuse, monkeypatch):
    monkeypatch.setattr("pathlib.Path.exists", lambda path: True)
    specs = registry.all_specs().values()
    assert len({datasets.find(spec, None) for spec in specs}) == len(specs)


def test_identity_is_that_of_the_file(raw, write_hdf5):
    path = write_hdf5(hopper(raw))
    dataset = datasets.load(HOPPER, str(path), episode_len=1000)
    identity = dataset.identity()
    histogram = identity.pop("return_histogram")
    assert identity == {
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "num_transitions": 66,
        "num_trajectories": 8,
        "dropped_tail": 5,
        "return_mean": float(dataset.trajectories.episode_returns.mean()),
        "return_best": float(dataset.trajectories.episode_returns.max()),
    }
    assert json.loads(json.dumps(dataset.identity())) == dataset.identity()
    edges, counts = np.array(histogram["edges"]), histogram["counts"]
    assert len(edges) == len(counts) + 1
    returns = dataset.trajectories.episode_returns
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        within = (returns >= low) & ((returns < high) | (high == edges[-1]))
        assert within.sum() == count
    assert sum(counts) == len(returns)
    assert (edges[0], edges[-1]) == (returns.min(), returns.max())


def test_source_is_the_name_in_the_cache(raw, write_hdf5, cache, refuse):
    cache.mkdir()
    write_hdf5(hopper(raw)).rename(cache / "hopper_medium-v2.hdf5")
    dataset = datasets.load(HOPPER, None, episode_len=1000)
    assert dataset.source == "hopper_medium-v2.hdf5"


def test_a_file_that_does_not_fit(raw, write_hdf5):
    path = write_hdf5(hopper(raw))
    with pytest.raises(UserError) as caught:
        datasets.load(registry.lookup("halfcheetah-medium-v2"), str(path))
    message = str(caught.value)
    assert "the environment's 17 and 6" in message
    assert str(path) in message
    assert "\n" not in message


def test_any_sizes_load_without_env_name(raw, write_hdf5):
    path = write_hdf5(raw)
    dataset = datasets.load(None, str(path), episode_len=40)
    assert dataset.trajectories.observations.shape == (66, 4)


def test_a_demo_file_is_called_one_wherever_it_lies(tmp_path, cache):
    demo = tmp_path / "mine.hdf5"
    dt_jax.datasets.demo.collect_demo("maze2d-umaze-demo", demo, steps=600)
    umaze = registry.lookup("maze2d-umaze-v1")
    dataset = datasets.load(umaze, str(demo), episode_len=300)
    assert dataset.source == f"{demo} (maze2d-umaze-demo)"
    with pytest.raises(UserError, match=r"give env_name=maze2d-umaze-demo"):
        datasets.load(registry.lookup("maze2d-large-v1"), str(demo), episode_len=800)
    cache.mkdir(exist_ok=True)
    copy = cache / "maze2d-umaze-sparse-v1.hdf5"
    copy.write_bytes(demo.read_bytes())
    with pytest.raises(UserError, match="it was collected as maze2d-umaze-demo; take"):
        datasets.load(umaze, None, episode_len=300)


def test_the_home_of_nobody_is_no_traceback():
    with pytest.raises(UserError, match=r"no such file: ~nobody9/x\.hdf5"):
        datasets.load(None, "~nobody9/x.hdf5")
