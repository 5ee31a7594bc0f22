"""Minari's datasets are read as recorded, and corruption is reported."""

import fcntl
import json
import shutil
import sys

import h5py
import numpy as np
import pytest
from recording import record

from dt_jax.data import minari
from dt_jax.utils.errors import UserError

NAME = "minari:mujoco/hopper/test-v0"
COPY = "minari:MINE/COPIED-v0"  # its metadata still contains the original id
LENGTHS = (60, 2, 7)


def as_recorded(episode):
    return episode.observations, episode.actions, episode.rewards


def read(name=NAME):
    return minari.read(minari.open_dataset(name), as_recorded)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Minari's folder with three episodes of hopper, the first terminated by a fall."""
    root = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        return root, record("Hopper-v5", NAME.removeprefix("minari:"), LENGTHS)


@pytest.fixture
def copy(recorded, tmp_path, monkeypatch):
    """The HDF5 file of a copy under another id, which tests corrupt."""
    shutil.copytree(recorded[0], tmp_path, dirs_exist_ok=True)
    shutil.copytree(tmp_path / "mujoco/hopper/test-v0", tmp_path / "MINE/COPIED-v0")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path / "MINE/COPIED-v0/data/main_data.hdf5"


def test_each_action_is_paired_with_the_observation_before_it(recorded, monkeypatch):
    root, episodes = recorded
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    raw = read()
    assert raw.observations.dtype == raw.actions.dtype == raw.rewards.dtype == "f4"
    rows = [o for observations, _ in episodes for o in observations[:-1]]
    np.testing.assert_array_equal(raw.observations, np.array(rows, np.float32))
    rewards = [r for _, rewards in episodes for r in rewards]
    np.testing.assert_array_equal(raw.rewards, np.array(rewards, np.float32))
    assert raw.actions.shape == (len(rows), 3)


def test_terminals_and_timeouts_mark_episode_ends(recorded, monkeypatch):
    root, episodes = recorded
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    lengths = [len(rewards) for _, rewards in episodes]
    assert lengths[0] < LENGTHS[0]  # it fell
    raw = read()
    ends = np.cumsum(lengths) - 1
    np.testing.assert_array_equal(np.flatnonzero(raw.timeouts), ends)
    np.testing.assert_array_equal(np.flatnonzero(raw.terminals), ends[:1])


def test_sha256_depends_on_the_content(copy):
    raw = read()
    assert minari.sha256(raw) == minari.sha256(read(COPY))
    for key, array in raw._asdict().items():
        changed = array.copy()
        changed.flat[3] = not changed.flat[3]
        assert minari.sha256(raw._replace(**{key: changed})) != minari.sha256(raw)
    wider = raw.observations.reshape(-1, 1)
    assert minari.sha256(raw._replace(observations=wider)) != minari.sha256(raw)


def change_metadata(**changes):
    """Return a function that changes a dataset's metadata; None removes a key."""

    def corrupt(path):
        metadata = path.with_name("metadata.json")
        changed = json.loads(metadata.read_text()) | changes
        kept = {key: value for key, value in changed.items() if value is not None}
        metadata.write_text(json.dumps(kept))

    return corrupt


def replace_array(key, change):
    """Return a function that replaces an array, or removes it without `change`."""

    def corrupt(path):
        with h5py.File(path, "a") as file:
            array = file[key][:]
            del file[key]
            if change:
                file[key] = change(array)

    return corrupt


def put_nan(array):
    array[1, 2] = np.nan
    return array


def test_locked_dataset_is_not_called_corrupt(copy):
    with copy.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"is in use by .*HDF5_USE_FILE_LOCKING"):
            read(COPY)
    assert len(read(COPY).rewards)


def test_columns_that_float32_is_too_coarse_for_are_refused(copy):
    with h5py.File(copy, "a") as file:
        for episode in file.values():
            episode["observations"][:, 2] += 5e6
    with pytest.raises(UserError, match=f"^{COPY}: observations: column 2 is 5e.06 wi"):
        read(COPY)


COUNTS = "episode 1 has 2 rewards, 2 actions"
AGAIN = r"cannot be read \(.*\); download it again into .*/MINE/COPIED-v0$"


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), AGAIN),
        (lambda path: path.unlink(), AGAIN),
        (lambda path: path.with_name("metadata.json").unlink(), AGAIN),
        (lambda path: path.with_name("metadata.json").write_text("{}"), AGAIN),
        (replace_array("episode_2/rewards", None), AGAIN),
        (change_metadata(total_steps="many"), AGAIN),
        (change_metadata(total_episodes=0), "contains no steps"),
        (change_metadata(total_episodes=2), "announces [0-9]+ steps, but has [0-9]+"),
        (change_metadata(total_steps=5), "announces 5 steps, but has [0-9]+"),
        (
            replace_array("episode_1/observations", lambda array: array[:-1]),
            f"{COUNTS}, 2 terminations and 2 observations",
        ),
        (
            replace_array("episode_1/terminations", lambda array: array[:1]),
            f"{COUNTS}, 1 terminations",
        ),
        (
            replace_array(
                "episode_2/observations", lambda a: np.pad(a, [(0, 0), (0, 1)])
            ),
            r"2 has observations of dtype float64 and shape \(12,\) per step; metadata",
        ),
        (
            replace_array("episode_1/actions", lambda a: np.full(a.shape, b"left")),
            r"1 has actions of dtype \|S4 and shape \(3,\) per step; metadata",
        ),
        (
            replace_array("episode_1/actions", put_nan),
            "episode 1: actions is NaN, infinite or too large .*, first in row 1$",
        ),
    ],
)
def test_corruption_is_reported(copy, corrupt, message):
    corrupt(copy)
    with pytest.raises(UserError, match=rf"^{COPY}.*{message}"):
        read(COPY)


def test_unknown_environment_is_not_called(copy, tmp_path):
    """Minari builds the environment where the spaces are missing."""
    command = {"args": ["touch", str(tmp_path / "called")]}
    metadata = json.loads(copy.with_name("metadata.json").read_text())
    spec = json.loads(metadata["env_spec"])
    spec |= {"entry_point": "subprocess:Popen", "kwargs": command}
    change_metadata(env_spec=json.dumps(spec), action_space=None)(copy)
    with pytest.raises(
        UserError, match="wrapper subprocess:Popen is unknown and is not called"
    ):
        read(COPY)
    assert not (tmp_path / "called").exists()

    change_metadata(env_spec=metadata["env_spec"])(copy)
    assert len(read(COPY).rewards)


@pytest.mark.usefixtures("copy")
def test_missing_dataset_that_cannot_be_downloaded_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_REMOTE", "nowhere://at-all")
    with pytest.raises(UserError, match="minari download hopper/none-v0") as error:
        minari.open_dataset("minari:hopper/none-v0")
    assert f"is not in {tmp_path}/hopper/none-v0" in str(error.value)


@pytest.mark.usefixtures("copy")
def test_missing_download_package_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "minari.storage.remotes.huggingface", False)
    monkeypatch.delenv("MINARI_REMOTE", raising=False)
    message = r"\(huggingface_hub is .*\); pip install 'dt_jax\[minari\]'$"
    with pytest.raises(UserError, match=message):
        minari.open_dataset("minari:none/like-it-at-all-v0")


def test_missing_package_for_the_file_format_is_reported(copy, monkeypatch):
    metadata = copy.with_name("metadata.json")
    metadata.write_text(metadata.read_text().replace('"hdf5"', '"arrow"'))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=rf"^{COPY} .* pyarrow is not .*pip install"):
        read(COPY)


def test_missing_minari_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(UserError, match=r"pip install 'dt_jax\[minari\]'"):
        minari.open_dataset(NAME)
