"""Datasets that are cut short, damaged, absurd or of something else altogether.

Each is given to the real launch.py, which must end with status 2 and one line that
says what is wrong and what to do, having written nothing.
"""

import json
import os
import random
import re
import resource
import shutil
import subprocess
import time
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from command import refusal, run
from recording import record

TINY = [
    "--config=configs/own_data.py",
    "--config.embedding_dim=8",
    "--config.num_layers=1",
    "--config.seq_len=3",
    "--config.batch_size=4",
    "--config.update_steps=2",
    "--config.eval_every=2",
]
ROWS, EPISODE = 60, 15
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
MOST_MEMORY, MOST_SECONDS = 1 << 30, 120  # of a program that refuses a file

SUFFIXES = (".npy", ".sha256", ".lock")  # of what may stay in a cache folder
DAMAGED = ("is no HDF5 or .npz file, or is damaged", "get it again")
UNWRITTEN = ("that is not what was written", "record it to the end")


def arrays(rows=ROWS, **changes):
    rng = np.random.default_rng(0)
    return {
        "observations": rng.standard_normal((rows, 3), np.float32),
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "rewards": rng.uniform(0, 1, rows).astype(np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.arange(1, rows + 1) % EPISODE == 0,
    } | changes


def to_hdf5(path, data, **options):
    with h5py.File(path, "w") as file:
        for key, array in data.items():
            if array is not None:
                file.create_dataset(key, data=array, **options)
    return path


def to_npz(path, data):
    with path.open("wb") as file:
        np.savez_compressed(file, **{k: v for k, v in data.items() if v is not None})
    return path


class Launch:
    """launch.py with a run's folder and a cache folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.workdir, self.cache = folder / "run", folder / "cache"
        self.environment = {"DT_JAX_DATA": str(self.cache)}

    def command(self, *arguments):
        return ("launch.py", *TINY, *arguments, f"--workdir={self.workdir}")

    def refuses(self, told, *arguments):
        """Hold what it does against all that is promised of a refusal."""
        begin, before = time.monotonic(), _most_memory_of_children()
        line = refusal(*self.command(*arguments), **self.environment)
        assert time.monotonic() - begin < MOST_SECONDS
        assert _most_memory_of_children() <= max(before, MOST_MEMORY)
        assert line.startswith("launch.py: error: ")
        for part in told:
            assert part in line
        assert not self.workdir.exists()
        assert files_in(self.cache) == []

    def refuses_file(self, told, path, *arguments):
        self.refuses((str(path), *told), f"--config.data_path={path}", *arguments)

    def runs(self, *arguments):
        """Return what it says on stderr beside its progress."""
        status, _, err = run(*self.command(*arguments), **self.environment)
        assert status == 0, err
        assert (self.workdir / "metrics.jsonl").exists()
        lines = err.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("step "))


def files_in(folder):
    return [path for path in folder.rglob("*") if not path.is_dir()]


def _most_memory_of_children():
    return 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


@pytest.fixture
def launch(tmp_path):
    return Launch(tmp_path)


WRITERS = {"hdf5": to_hdf5, "npz": to_npz}


@pytest.mark.parametrize("place", range(20))
@pytest.mark.parametrize("kind", WRITERS)
def test_cut_short(launch, kind, place):
    path = WRITERS[kind](launch.folder / f"data.{kind}", arrays())
    content = path.read_bytes()
    rng = random.Random(place)
    kept = [0, 1, 4, 8, len(content) - 1][place : place + 1] or [
        rng.randrange(9, len(content) - 1)
    ]
    path.write_bytes(content[: kept[0]])
    launch.refuses_file(DAMAGED, path)


def with_value(key, row, value):
    array = arrays()[key].astype(np.float64)
    array[row] = value
    return {key: array}


WRONG = {  # what is changed in the arrays -> what the line says
    "strings": ({"actions": np.full((ROWS, 2), b"left")}, "holds |S4, numbers are nee"),
    "complex": ({"rewards": np.zeros(ROWS, complex)}, "holds complex128, numbers are"),
    "a vector of observations": ({"observations": np.zeros(ROWS)}, "[steps, size] is"),
    "images": ({"observations": np.zeros((ROWS, 8, 8, 3))}, "[steps, size] is needed"),
    "two rewards a step": ({"rewards": np.zeros((ROWS, 2))}, "[steps] is needed"),
    "a single number": ({"rewards": np.float32(3)}, "has shape (); [steps] is needed"),
    "no rewards": ({"rewards": None}, "lacks rewards; a dataset needs"),
    "no terminals": ({"terminals": None}, "lacks terminals; a dataset needs"),
    "no ends": ({"timeouts": None}, "add one of them, or give episode_len"),
    "no end set": ({"timeouts": np.zeros(ROWS, bool)}, "no complete trajectory in 60"),
    "one row less": ({"actions": np.zeros((ROWS - 1, 2))}, "differ in length: obse"),
    "one row more": ({"timeouts": np.zeros(ROWS + 1, bool)}, "differ in length: obse"),
    "no rows": (arrays(rows=0), "is empty, its shape is (0, 3)"),
    "no columns": ({"actions": np.zeros((ROWS, 0))}, "is empty, its shape is (60, 0)"),
    "NaN in observations": (with_value("observations", 7, np.nan), "first in row 7"),
    "infinity in actions": (with_value("actions", 8, np.inf), "first in row 8"),
    "NaN in rewards": (with_value("rewards", 9, np.nan), "first in row 9"),
    "NaN in terminals": (with_value("terminals", 10, np.nan), "first in row 10"),
    "infinity in timeouts": (with_value("timeouts", 11, np.inf), "first in row 11"),
    "beyond float32": (with_value("rewards", 12, 1e39), "too large for float32, first"),
    "returns beyond float32": ({"rewards": np.full(ROWS, 3e38)}, "scale them down in"),
    "a flag of 2": (with_value("terminals", 13, 2), "has 0 to 2, not 0 or 1"),
    "a flag of -1": (with_value("timeouts", 13, -1), "has -1 to 1, not 0 or 1"),
    "ends that are lengths": (
        {"timeouts": None, "episode_ends": [15, 15, 15, 15]},
        "episode_ends must be growing integers from 1 to 60",
    ),
    "ends beyond the data": (
        {"timeouts": None, "episode_ends": [15, 61]},
        "episode_ends must be growing integers from 1 to 60",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arrays(launch, name):
    """In one format or the other: what they have in common reads both."""
    changes, told = WRONG[name]
    kind = sorted(WRITERS)[list(WRONG).index(name) % 2]
    path = WRITERS[kind](launch.folder / f"data.{kind}", arrays(**changes))
    launch.refuses(
        (told, str(path)), f"--config.data_path={path}", "--config.reward_scale=1"
    )


def pickled(path):
    data = arrays(actions=np.array([{"a": 1}] * ROWS, object))
    np.savez(path.with_suffix(".npz"), allow_pickle=True, **data)
    return path.with_suffix(".npz")


def flipped_content(path):
    """Flip a byte in the middle of the compressed actions."""
    to_npz(path, arrays())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("actions.npy")
    content = bytearray(path.read_bytes())
    content[member.header_offset + member.compress_size // 2] ^= 0x40
    path.write_bytes(content)
    return path


def flipped_header(path):
    """Spoil the checksum that an array's header in the archive tells."""
    to_npz(path, arrays())
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 16] ^= 0x40
    path.write_bytes(content)
    return path


def flipped_directory(path):
    to_npz(path, arrays())
    content = path.read_bytes()
    start = content.rindex(b"PK\x01\x02")
    path.write_bytes(content[:start] + b"PK\x01\x03" + content[start + 4 :])
    return path


def renamed_in_the_directory(path):
    """The local header still has the right name."""
    to_npz(path, arrays())
    content = path.read_bytes()
    start = content.rindex(b"timeouts.npy")
    path.write_bytes(content[:start] + b"tameouts" + content[start + 8 :])
    return path


def encrypted(path):
    to_npz(path, arrays())
    content = bytearray(path.read_bytes())
    for signature, offset in (b"PK\x03\x04", 6), (b"PK\x01\x02", 8):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    return path


def unknown_method(path):
    to_npz(path, arrays())
    content = bytearray(path.read_bytes())
    for signature, offset in (b"PK\x03\x04", 8), (b"PK\x01\x02", 10):
        content[content.index(signature) + offset] = 97
    path.write_bytes(content)
    return path


def announcing(shape, kept=1000):
    """Return what writes an archive whose arrays announce rows, and keep some bytes."""

    def make(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for key, array in arrays().items():
                announced = shape if key == "actions" else (shape[0], *array.shape[1:])
                header = {"descr": "<f4", "fortran_order": False, "shape": announced}
                with archive.open(f"{key}.npy", "w") as file:
                    np.lib.format.write_array_header_1_0(file, header)
                    file.write(bytes(kept))
        return path

    return make


def huge_header(path):
    """Announce a .npy header of 4 GB, and give 1 GB of it, in 1 MB."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("actions.npy", "w", force_zip64=True) as file,
    ):
        file.write(b"\x93NUMPY\x02\x00\xff\xff\xff\xff")
        for _ in range(1 << 10):
            file.write(b" " * (1 << 20))
    return path


def virtual(path):
    to_hdf5(path.with_name("source.hdf5"), arrays())
    layout = h5py.VirtualLayout((ROWS, 2), "f4")
    layout[:] = h5py.VirtualSource(path.with_name("source.hdf5"), "actions", (ROWS, 2))
    to_hdf5(path, arrays(actions=None))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("actions", layout)
    return path


def external_link(path):
    to_hdf5(path.with_name("source.hdf5"), arrays())
    to_hdf5(path, arrays(actions=None))
    with h5py.File(path, "a") as file:
        file["actions"] = h5py.ExternalLink("source.hdf5", "/actions")
    return path


def external_storage(path):
    to_hdf5(path, arrays(actions=None))
    outside = [(str(path.with_name("outside.bin")), 0, h5py.h5f.UNLIMITED)]
    with h5py.File(path, "a") as file:
        file.create_dataset("actions", data=arrays()["actions"], external=outside)
    return path


def never_written(rows, chunked=True):
    """Return what writes a file that announces rows and has not one."""

    def make(path):
        with h5py.File(path, "w") as file:
            for key, array in arrays().items():
                shape = (rows, *array.shape[1:])
                chunks = (10, *array.shape[1:]) if chunked else None
                file.create_dataset(key, shape, array.dtype, chunks=chunks)
        return path

    return make


def half_written(path):
    """As a recording that was killed leaves it."""
    with h5py.File(path, "w") as file:
        for key, array in arrays().items():
            chunks = (10, *array.shape[1:])
            made = file.create_dataset(key, array.shape, array.dtype, chunks=chunks)
            made[: ROWS // 2] = array[: ROWS // 2]
    return path


def bomb(path):
    """Write some 100 kB that unpack to more rows than the memory has bytes."""
    chunk = 1 << 26
    packed = zlib.compress(bytes(chunk))
    rows = MEMORY // chunk * chunk
    with h5py.File(path, "w") as file:
        for key, array in arrays().items():
            shape, chunks = (rows, *(1 for _ in array.shape[1:])), (chunk,)
            made = file.create_dataset(
                key, shape, "i1", chunks=chunks + shape[1:], compression="gzip"
            )
            for start in range(0, rows, chunk):
                made.id.write_direct_chunk((start, *(0 for _ in shape[1:])), packed)
    return path


def unknown_filter(path):
    to_hdf5(path, arrays(), compression="gzip")
    content, number = path.read_bytes(), (1).to_bytes(2, "little")
    named = number + (8).to_bytes(2, "little") + (1).to_bytes(2, "little")
    assert named in content
    other = (32015).to_bytes(2, "little")
    path.write_bytes(content.replace(named, other + named[2:]))
    return path


def damaged_chunk(path):
    to_hdf5(path, arrays(), compression="gzip")
    with h5py.File(path) as file:
        chunk = file["actions"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 0x40
    path.write_bytes(content)
    return path


def a_group(path):
    to_hdf5(path, arrays(actions=None))
    with h5py.File(path, "a") as file:
        file.create_group("actions")
    return path


def a_web_page(path):
    path.write_text("<!DOCTYPE html><title>404</title>\n" * 100)
    return path


def a_folder(path):
    path.mkdir()
    return path


def a_fifo(path):
    os.mkfifo(path)
    return path


def a_loop_of_links(path):
    other = path.with_name("other")
    path.symlink_to(other)
    other.symlink_to(path)
    return path


def unreadable(path):
    if os.geteuid() == 0:
        pytest.skip("root may read anything")
    to_hdf5(path, arrays()).chmod(0)
    return path


FILES = {  # what writes it -> what the line says
    "a pickle": (pickled, ("actions holds object, numbers are needed",)),
    "flipped content": (flipped_content, DAMAGED),
    "flipped header": (flipped_header, DAMAGED),
    "flipped directory": (flipped_directory, DAMAGED),
    "renamed in the directory": (renamed_in_the_directory, DAMAGED),
    "encrypted": (encrypted, DAMAGED),
    "unknown method": (unknown_method, DAMAGED),
    "huge shape.npz": (announcing((10**12, 2)), ("announces the shape (1", "get it")),
    "negative shape.npz": (announcing((-60, -2), 480), ("shape (-60, 3)", "get it")),
    "huge .npy header": (huge_header, DAMAGED),
    "virtual": (virtual, ("/actions lies in other files", "copy it here")),
    "external link": (external_link, ("actions lies in other files", "copy it here")),
    "external storage": (external_storage, ("lies in other files", "copy it here")),
    "huge shape.hdf5": (never_written(10**12), UNWRITTEN),
    "huge shape, one piece.hdf5": (never_written(10**12, chunked=False), UNWRITTEN),
    "never written": (never_written(ROWS), UNWRITTEN),
    "half written": (half_written, UNWRITTEN),
    "a bomb": (bomb, ("GB of memory, and this machine has", "split the data")),
    "unknown filter": (unknown_filter, ("is not installed", "write it with gzip")),
    "damaged chunk": (damaged_chunk, DAMAGED),
    "a group": (a_group, ("lacks actions", "a dataset needs")),
    "a web page": (a_web_page, DAMAGED),
    "a folder": (a_folder, ("is a folder; an HDF5 or .npz file is needed",)),
    "a fifo": (a_fifo, ("is no ordinary file; an HDF5 or .npz file is needed",)),
    "a loop of links": (a_loop_of_links, ("is a link to what is not there", "mend")),
    "unreadable": (unreadable, ("Permission denied",)),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_file(launch, name):
    make, told = FILES[name]
    launch.refuses_file(told, make(launch.folder / name.replace(" ", "_")))


def test_what_is_no_file_of_ours(launch):
    launch.refuses_file(("is no ordinary file",), "/dev/zero")
    launch.refuses(
        ("is no path: download the file",),
        "--config.data_path=https://example.org/a.hdf5",
    )
    launch.refuses(("no such file",), f"--config.data_path={launch.folder}/none.hdf5")


def test_another_environments_observations(launch):
    path = to_hdf5(launch.folder / "data.hdf5", arrays())
    launch.refuses_file(
        (
            "observations of 3 and actions of 2 numbers don't fit",
            "11 and 3",
            "give the",
        ),
        path,
        "--config=configs/hopper.py:medium",
        "--config.target_returns=1",
    )


def test_a_longer_episode_than_said(launch):
    path = to_hdf5(launch.folder / "data.hdf5", arrays())
    told = ("trajectory 0 has 15 steps, more than", "give episode_len=15")
    launch.refuses_file(told, path, "--config.episode_len=10")


# What looks odd and is right.


def test_names_with_spaces_and_of_any_script(launch):
    folder = launch.folder / "мои данные" / "数据 😀"
    folder.mkdir(parents=True)
    launch.workdir = folder / "a run"
    path = to_npz(folder / "été = 1.npz", arrays())
    link = folder / "a link"
    link.symlink_to(path)
    for name in (path, link):
        said = launch.runs(f"--config.data_path={name}")
        # The picture's font has not every letter.
        assert all("Glyph" in line for line in said.splitlines())
        shutil.rmtree(launch.workdir)


def test_episodes_of_one_step(launch):
    """Bandits are data too; that a third of antmaze's episodes are such, is D4RL's."""
    path = to_hdf5(launch.folder / "data.hdf5", arrays(terminals=np.ones(ROWS, bool)))
    assert launch.runs(f"--config.data_path={path}") == ""


def test_actions_out_of_range_are_warned_of(launch):
    data = arrays(**with_value("actions", 3, 1.5))
    path = to_hdf5(launch.folder / "data.hdf5", data)
    err = launch.runs(f"--config.data_path={path}", "--config.max_action=1")
    assert re.fullmatch(
        r"launch.py: warning: .*data.hdf5: 1 of 60 actions lie outside .*clip them\n",
        err,
    )


# Where there is less room than the data needs.


@pytest.fixture
def small_disk(launch):
    """Return what mounts a disk of 1 MB as the cache folder, if we may."""

    def mount(options="size=1m"):
        launch.cache.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(launch.cache)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small disk is not allowed here")

    yield mount
    subprocess.run(["umount", str(launch.cache)], capture_output=True)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_is_too_small_is_told_before_it_is_filled(launch, small_disk, kind):
    """A small file of zeros, which unpacks to more than there is."""
    small_disk()
    rows = 100_000
    data = {key: np.zeros((rows, *a.shape[1:])) for key, a in arrays().items()}
    options = {"compression": "gzip"} if kind == "hdf5" else {}
    path = WRITERS[kind](launch.folder / f"data.{kind}", data, **options)
    assert path.stat().st_size < 100_000
    launch.refuses(
        (
            str(launch.cache),
            "0.00105 GB are free",
            "0.0024 GB are to be kept",
            "DT_JAX",
        ),
        f"--config.data_path={path}",
        "--config.memory_limit_gb=0.001",
    )


def test_a_disk_that_is_full_in_the_middle(launch, small_disk):
    """No name is left for the second file: one line more, and nothing half-written."""
    small_disk("size=64m,nr_inodes=6")
    path = to_hdf5(launch.folder / "data.hdf5", arrays(), compression="gzip")
    status, _, err = run(
        *launch.command(f"--config.data_path={path}", "--config.memory_limit_gb=0"),
        **launch.environment,
    )
    *progress, line = err.splitlines()
    assert status == 2
    assert all("stay on the disk" in said or "unpacking" in said for said in progress)
    assert line.startswith(f"launch.py: error: {launch.cache}")
    assert "No space left on device" in line
    assert "name another folder by DT_JAX_DATA" in line
    assert not launch.workdir.exists()
    assert not [path for path in files_in(launch.cache) if path.suffix not in SUFFIXES]


# Minari's datasets: a folder of main_data.hdf5 and metadata.json.

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
