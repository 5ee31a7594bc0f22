"""Corrupt Minari datasets: a folder with main_data.hdf5 and metadata.json."""

import json
import shutil

import h5py
import numpy as np
import pytest
from recording import record

NAME = "hopper/test-v0"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        record("Hopper-v5", NAME, (20, 10, 15))
    return root


@pytest.fixture
def copy(launch, recorded):
    """The data folder of a copy, which launch uses."""
    root = launch.folder / "minari"
    shutil.copytree(recorded, root)
    launch.environment |= {
        "MINARI_DATASETS_PATH": str(root),
        "MINARI_REMOTE": "nowhere://at-all",
    }
    return root / NAME / "data"


def change_metadata(**changes):
    def corrupt(folder):
        metadata = json.loads((folder / "metadata.json").read_text()) | changes
        (folder / "metadata.json").write_text(json.dumps(metadata))

    return corrupt


def write_metadata(text):
    return lambda folder: (folder / "metadata.json").write_text(text)


def cut_file(size):
    def corrupt(folder):
        file = folder / "main_data.hdf5"
        file.write_bytes(file.read_bytes()[:size])

    return corrupt


def replace_array(key, change):
    def corrupt(folder):
        with h5py.File(folder / "main_data.hdf5", "a") as file:
            array = change(file[key][:])
            del file[key]
            file[key] = array

    return corrupt


def put_nan(array):
    array[3] = np.nan
    return array


AGAIN = ("cannot be read", "download it again into")
MINARI = {  # name -> function that corrupts the dataset, parts of the error
    "empty file": (cut_file(0), AGAIN),
    "cut file": (cut_file(3000), AGAIN),
    "file without its end": (cut_file(-1), AGAIN),
    "no file": (lambda folder: (folder / "main_data.hdf5").unlink(), AGAIN),
    "no metadata": (lambda folder: (folder / "metadata.json").unlink(), AGAIN),
    "empty metadata": (write_metadata(""), AGAIN),
    "wrong JSON": (write_metadata('{"total_steps": 45,'), AGAIN),
    "a list": (write_metadata("[1, 2]"), AGAIN),
    "no keys": (write_metadata("{}"), AGAIN),
    "no episode": (change_metadata(total_episodes=0), ("contains no steps",)),
    "no step": (change_metadata(total_steps=0), ("contains no steps",)),
    "fewer steps": (change_metadata(total_steps=3), ("announces 3 steps",)),
    "another space": (change_metadata(observation_space="{}"), AGAIN),
    "another format": (change_metadata(data_format="tape"), AGAIN),
    "NaN": (replace_array("episode_1/rewards", put_nan), ("rewards is NaN",)),
    "NaN observed": (
        replace_array("episode_1/observations", put_nan),
        ("observations is NaN, infinite or too large",),
    ),
    "strings": (
        replace_array("episode_1/actions", lambda array: array.astype("S")),
        ("episode 1 has actions of dtype |S", "numbers of shape (3,)"),
    ),
    "another size": (
        replace_array("episode_1/actions", lambda array: array[:, :2]),
        ("shape (2,) per step; metadata.json announces numbers of shape (3,)",),
    ),
    "another length": (
        replace_array("episode_1/actions", lambda array: array[:-1]),
        ("expected equal numbers, and one observation more",),
    ),
}


@pytest.mark.parametrize("name", MINARI)
def test_corrupt_minari_dataset_is_refused(launch, copy, name):
    corrupt, parts = MINARI[name]
    corrupt(copy)
    arguments = f"--config.env_name=minari:{NAME}", "--config.eval_episodes=0"
    launch.refuses((f"minari:{NAME}", *parts), *arguments)


@pytest.mark.usefixtures("copy")
def test_intact_minari_dataset_is_read(launch):
    arguments = f"--config.env_name=minari:{NAME}", "--config.eval_episodes=0"
    assert launch.runs(*arguments) == ""
