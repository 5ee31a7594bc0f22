import os
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
from recording import record

from dt_jax.cli import data as command
from dt_jax.cli.common import run_command
from dt_jax.data.cache import download_folder, record_sha256, sha256_of
from dt_jax.data.registry import all_specs
from dt_jax.datasets.demo import collect_demo


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("DT_JAX_DATA", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # for compiled programs
    return folder


@pytest.fixture
def run(capsys):
    """Return a function that runs the command and returns its output."""

    def run(*arguments):
        command.main(arguments)
        return capsys.readouterr().out

    return run


@pytest.fixture
def fails(capsys):
    """Return a function that runs a command that fails, and returns its line."""

    def fails(*arguments):
        with pytest.raises(SystemExit) as error:
            run_command(lambda: command.main(arguments), "data")
        assert error.value.code == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("data: error: ")
        assert output.err.count("\n") == 1
        return output.err

    return fails


@pytest.fixture
def demo(cache, capsys):
    """A small maze2d-umaze-demo in the cache folder."""
    path = cache / "maze2d-umaze-demo.hdf5"
    collect_demo("maze2d-umaze-demo", path, steps=600)
    capsys.readouterr()
    return path


def test_list_has_a_line_for_each_dataset(run, demo, cache):
    text = run("list")
    rows = [line.split(maxsplit=4) for line in text.splitlines()]
    listed = {row[0]: row[1:] for row in rows}
    for name, spec in all_specs().items():
        assert listed[name][0] == spec.family
        cached = "yes" if name == "maze2d-umaze-demo" else "-"
        assert listed[name][1] == cached
        url = (spec.url or "(collected locally)").removeprefix(command._D4RL_URL)
        assert listed[name][-1].split("  ")[-1] == url
    megabytes = f"{demo.stat().st_size / 1e6:.1f}"
    assert listed["maze2d-umaze-demo"][2:] == [megabytes, "MB  (collected locally)"]
    assert f"cache folder: {cache}\n" in text
    assert f"URLs are relative to {command._D4RL_URL}\n" in text


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("hopper-medium-e", ["hopper-medium-expert-v2"]),
        ("HOPPER-Medium-e", ["hopper-medium-expert-v2"]),
        ("ant*medium*e-demo", ["antmaze-medium-diverse-demo"]),
    ],
)
def test_list_filters_by_pattern(run, pattern, names):
    rows = run("list", pattern).splitlines()[1:-2]
    assert [row.split()[0] for row in rows] == names


def test_info_of_a_name_equals_info_of_its_file(run, demo):
    by_name = run("info", "maze2d-umaze-demo")
    assert "source        maze2d-umaze-demo.hdf5\n" in by_name
    assert f"sha256        {sha256_of(demo)}\n" in by_name
    assert "environment   maze2d-umaze-demo\n" in by_name
    assert "\nnormalised " in by_name
    by_file = run("info", str(demo))  # which contains its name
    assert by_file == by_name.replace(demo.name, str(demo))


def test_info_of_a_file_with_and_without_environment(run, hopper_file):
    text = run("info", str(hopper_file))
    assert "unknown; set it with --env_name" in text
    assert "normalised" not in text
    assert "\ntransitions   141\n" in text
    scored = run("info", str(hopper_file), "--env_name=hopper-medium-v2")
    assert "environment   hopper-medium-v2\n" in scored
    assert "\nnormalised " in scored


@pytest.mark.parametrize("name", ["hopper-medium-v2", "antmaze-umaze-demo"])
def test_info_of_a_file_with_the_name_of_an_environment_of_other_sizes(
    run, raw, write_hdf5, name
):
    path = write_hdf5(raw)
    without = run("info", str(path))
    with h5py.File(path, "a") as file:
        file.attrs["env_name"] = name
    with pytest.warns(UserWarning, match=f"env_name is {name}, .* other sizes"):
        text = run("info", str(path))
    described = "\nenvironment   unknown; set it with --env_name\n"
    assert text.partition(described)[1:] == without.partition(described)[1:]
    assert described in text


def test_reading_options_apply(run, raw, write_hdf5):
    assert "\ntrajectories  8; of one step: 4 (50%)\n" in run(
        "info", str(write_hdf5(raw))
    )
    by_timeouts = run("info", str(write_hdf5(raw)), "--split=timeouts")
    assert f"\ntrajectories  {raw.timeouts.sum()}; " in by_timeouts
    verified = run("verify", str(write_hdf5(raw)), "--split=timeouts")
    assert f" in {raw.timeouts.sum()} trajectories " in verified
    bare = str(write_hdf5(raw, timeouts=None, terminals=0 * raw.rewards))
    with pytest.warns(UserWarning, match="to end after 10 steps"):
        text = run("info", bare, "--episode_len=1e1")
    assert re.search(r"\nlength +10 +10 +10 +10 +10 +10 +0\n", text)
    assert "\ndropped tail  1 row\n" in text


def test_info_errors(fails, raw, write_hdf5, cache):
    assert "no such file: my.hdf5" in fails("info", "my.hdf5")
    assert "nearest: hopper-medium-v2" in fails("info", "hoper-medium-v2")
    assert (
        f"not in {cache}; download it with python -m dt_jax data download hopper-demo"
        in (fails("info", "hopper-demo"))
    )
    assert f"{cache} is a folder, expected an HDF5" in fails("info", str(cache))
    assert f"{os.devnull} is not a regular file" in fails("info", os.devnull)
    path = str(write_hdf5(raw))
    assert "do not match the environment's" in fails(
        "info", path, "--env_name=hopper-medium-v2"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND; see --help"),
        (["lst"], "invalid choice: 'lst'"),
        (["list", "cartpole"], "no dataset 'cartpole'; python -m dt_jax data list"),
        (["list", "minari"], "no dataset 'minari'; Minari's are written minari:ID"),
        (["info", "a.hdf5", "--split=both"], "invalid choice: 'both'"),
        (["info", "a.hdf5", "--episode_len=x"], "1 to 2147483647, got 'x'"),
        (["info", "a.hdf5", "--episode_len=0"], "1 to 2147483647, got '0'"),
        (["verify", "a.hdf5", "--episode_len=1e10"], "2147483647, got '1e10'"),
        (["verify", "a.hdf5", "--episode_len=2.5"], "2147483647, got '2.5'"),
        (["verify", "cartpole"], "no file or dataset 'cartpole'; python -m dt_jax"),
        (["download", "hopper"], "no dataset 'hopper'; nearest: hopper-demo"),
        (["download", "of/Hopper_medium-v2.hdf5"], "; nearest: hopper-medium-v2, "),
        (["verify"], "required: NAME_OR_FILE"),
    ],
)
def test_wrong_usage_is_reported(fails, arguments, message):
    assert message in fails(*arguments)


def test_download_collects_a_demo_once(run, monkeypatch, cache):
    monkeypatch.setattr(
        "dt_jax.datasets.demo.collect_demo",
        lambda name, out: collect_demo(name, out, steps=600),
    )
    path = cache / "maze2d-umaze-demo.hdf5"
    first = run("download", "maze2d-umaze-demo")
    size = f"{path.stat().st_size / 1e6:,.1f} MB"
    assert first == f"{path}\n{size}, sha256 {sha256_of(path)}\n"
    written = path.stat().st_mtime_ns
    assert f"{path} already exists\n" in run("download", "maze2d-umaze-demo")
    assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize("size", [0, 3_000])
def test_download_reports_a_truncated_cached_file(fails, demo, size):
    os.truncate(demo, size)
    line = fails("download", "maze2d-umaze-demo")
    assert "corrupt, or not an HDF5" in line
    again = "python -m dt_jax data download maze2d-umaze-demo"
    assert line.endswith(f". To download it again, delete {demo} and run {again}\n")


@pytest.mark.parametrize("record", ["0" * 64, "corrupt"])
def test_download_reports_a_file_that_differs_from_its_record(fails, demo, record):
    record_sha256(demo, record)
    line = fails("download", "maze2d-umaze-demo")
    assert f"delete {demo} and {demo.name}.sha256 and run " in line


def test_download_of_a_minari_dataset(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    record("Pendulum-v1", "test/pendulum-v0", [20])
    folder = tmp_path / "test/pendulum-v0/data"
    assert run("download", "minari:test/pendulum-v0").startswith(f"{folder}, 0.")


def test_verify_compares_with_the_record(run, fails, demo):
    sha256 = sha256_of(demo)
    text = run("verify", "maze2d-umaze-demo")
    assert text.startswith("ok: 6")
    assert text.endswith(f"no recorded sha256; it is {sha256}\n")
    record_sha256(demo, sha256)
    assert run("verify", str(demo)).endswith(f"ok: sha256 {sha256}, as recorded\n")
    with h5py.File(demo, "a") as file:
        file["rewards"][3] = 0.5
    assert "its SHA-256 is" in fails("verify", "maze2d-umaze-demo")


def test_verify_reads_all_numbers(fails, raw, write_hdf5):
    rewards = raw.rewards.copy()
    rewards[60] = np.nan
    line = fails("verify", str(write_hdf5(raw, rewards=rewards)))
    assert "rewards is NaN, infinite or too large for float32, first in row 60" in line


def test_info_of_a_file_imports_neither_jax_nor_engines(hopper_file):
    """They take seconds to import."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['dt_jax', 'data', 'info', {str(hopper_file)!r}]\n"
        "runpy.run_module('dt_jax', run_name='__main__')\n"
        "assert not {'jax', 'envpool', 'minari', 'mujoco'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "\ntransitions   141\n" in result.stdout


def test_clear_deletes_cached_files(run, fails, demo, cache, tmp_path):
    mine = cache / "mine.hdf5"
    mine.touch()
    record_sha256(demo, sha256_of(demo))
    hopper = cache / "hopper_medium-v2.hdf5"
    partial = download_folder(hopper) / "tmp123"
    for path in (
        hopper,
        partial,
        cache / "unpacked/x.npy",
        tmp_path / "dt_jax/compiled/y",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(100_000))
    listed = run("list")
    assert f"unpacked: 0.1 MB in {cache}/unpacked" in listed
    assert f"compiled programs: 0.1 MB in {tmp_path}/dt_jax/compiled" in listed
    assert "give names of datasets to delete, or --all" in fails("clear")
    assert "or --all" in fails("clear", "--all", "hopper-medium-v2")
    assert "nearest: hopper-medium-v2" in fails("clear", "hoper-medium-v2")
    assert run("clear", "walker*", "hopper-*") == "deleted 0.2 MB in 2 files\n"
    assert not hopper.exists()
    assert not partial.exists()
    assert demo.exists()
    assert run("clear", "--all").endswith(" MB in 4 files\n")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert run("clear", "--all") == "deleted 0.0 MB in 0 files\n"
