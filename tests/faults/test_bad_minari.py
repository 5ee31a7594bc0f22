"""Minari's datasets, spoilt: a folder of main_data.hdf5 and metadata.json."""

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
    """The data folder of a copy; launch looks for it there."""
    root = launch.folder / "minari"
    shutil.copytree(recorded, root)
    launch.environment |= {
        "MINARI_DATASETS_PATH": str(root),
        "MINARI_REMOTE": "nowhere://at-all",
    }
    return root / NAME / "data"


def change_metadata(**changes):
    def spoil(folder):
        metadata = json.loads((folder / "metadata.json").read_text()) | changes
        (folder / "metadata.json").write_text(json.dumps(metadata))

    return spoil


def write_metadata(text):
    return lambda folder: (folder / "metadata.json").write_text(text)


def cut_file(size):
    def spoil(folder):
        file = folder / "main_data.hdf5"
        file.write_bytes(file.read_bytes()[:size])

    return spoil


def replace_array(key, change):
    def spoil(folder):
        with h5py.File(folder / "main_data.hdf5", "a") as file:
            array = change(file[key][:])
            del file[key]
            file[key] = array

    return spoil


def put_nan(array):
    array[3] = np.nan
    return array


def announce(folder):
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        del file["episode_1/observations"]
        shape, chunks = (10**12, 11), (1000, 11)
        file["episode_1"].create_dataset("observations", shape, "f8", chunks=chunks)


AGAIN = ("can't be read; get it again into",)
MINARI = {  # what spoils it -> what the line says
    "empty file": (cut_file(0), AGAIN),
    "cut file": (cut_file(3000), AGAIN),
    "file without its end": (cut_file(-1), AGAIN),
    "no file": (lambda folder: (folder / "main_data.hdf5").unlink(), AGAIN),
    "no metadata": (lambda folder: (folder / "metadata.json").unlink(), AGAIN),
    "empty metadata": (write_metadata(""), AGAIN),
    "wrong JSON": (write_metadata('{"total_steps": 45,'), AGAIN),
    "a list": (write_metadata("[1, 2]"), AGAIN),
    "no keys": (write_metadata("{}"), AGAIN),
    "no episode": (change_metadata(total_episodes=0), ("holds no step",)),
    "no step": (change_metadata(total_steps=0), ("holds no step",)),
    "too many episodes": (change_metadata(total_episodes=10**15), AGAIN),
    "too many steps": (change_metadata(total_steps=10**15), AGAIN),
    "fewer steps": (change_metadata(total_steps=3), ("should have 3 steps",)),
    "another space": (change_metadata(observation_space="{}"), AGAIN),
    "another format": (change_metadata(data_format="tape"), AGAIN),
    "huge array": (announce, (*AGAIN, "announces 88,000,000,000,000 bytes")),
    "NaN": (replace_array("episode_1/rewards", put_nan), ("rewards is NaN",)),
    "NaN observed": (
        replace_array("episode_1/observations", put_nan),
        ("observations is NaN, infinite or too large",),
    ),
    "strings": (
        replace_array("episode_1/actions", lambda array: array.astype("S")),
        ("episode 1 has actions of |S", "numbers of shape (3,) are needed"),
    ),
    "another size": (
        replace_array("episode_1/actions", lambda array: array[:, :2]),
        ("shape (2,) a step; numbers of shape (3,) are needed",),
    ),
    "another length": (
        replace_array("episode_1/actions", lambda array: array[:-1]),
        ("as many of all are needed, and one observation more",),
    ),
}


@pytest.mark.parametrize("name", MINARI)
def test_bad_minari_dataset(launch, copy, name):
    spoil, told = MINARI[name]
    spoil(copy)
    arguments = f"--config.env_name=minari:{NAME}", "--config.eval_episodes=0"
    launch.refuses((f"minari:{NAME}", *told), *arguments)


@pytest.mark.usefixtures("copy")
def test_the_minari_dataset_that_is_not_spoilt_is_read(launch):
    arguments = f"--config.env_name=minari:{NAME}", "--config.eval_episodes=0"
    assert launch.runs(*arguments) == ""
