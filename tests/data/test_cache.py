import shutil
import subprocess
from pathlib import Path

import pytest

from dt_jax.data.cache import (
    cache_folder,
    cache_lock,
    cache_space,
    cached_files,
    download_folder,
    record_sha256,
    sha256_of,
    verify_sha256,
)
from dt_jax.utils.errors import UserError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "data.hdf5"
    path.write_bytes(bytes(range(256)))
    record_sha256(path, sha256_of(path))
    return path


def test_cache_folder_is_the_users_unless_the_variable_is_set(monkeypatch):
    monkeypatch.delenv("DT_JAX_DATA", raising=False)
    assert cache_folder().name == "dt_jax"
    assert cache_folder().is_absolute()
    monkeypatch.setenv("DT_JAX_DATA", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"


def test_a_user_without_a_home_is_asked_for_a_folder(homeless, monkeypatch, tmp_path):
    monkeypatch.delenv("DT_JAX_DATA", raising=False)
    with pytest.raises(UserError, match="no home folder to keep datasets in: set"):
        cache_folder()
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path))
    assert cache_folder() == tmp_path


def test_cache_space_is_checked_in_advance(tmp_path, monkeypatch):
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path / "cache"))
    with cache_space(1000) as folder:
        assert folder == tmp_path / "cache"
    message = r"cache: only .* GB are free; 1e\+06 GB are"
    with pytest.raises(UserError, match=message), cache_space(1e15):
        pass


def test_lock_holder_removes_temporary_files_of_killed_processes(tmp_path):
    path, other = tmp_path / "new" / "a.hdf5", tmp_path / "new" / "b.hdf5"
    leftovers = ".{}.01234567.tmp.hdf5", ".{}.hdf5.01234567.tmp.sha256"
    path.parent.mkdir()
    for file in (path, other):
        for name in leftovers:
            (path.parent / name.format(file.stem)).touch()
    with cache_lock(path, "writing"):
        names = {file.name for file in path.parent.iterdir()}
        assert names == {".a.hdf5.lock", *(name.format("b") for name in leftovers)}
    assert not path.with_name(".a.hdf5.lock").exists()


def test_lock_in_a_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").touch()
    message = r"/file: .*; set DT_JAX_DATA to another folder"
    with pytest.raises(UserError, match=message), cache_lock(tmp_path / "file/a", "x"):
        pass


def test_cached_files_include_record_and_partial_download(path):
    assert cached_files(path.with_name("other.hdf5")) == []
    download_folder(path).mkdir()
    (download_folder(path) / "tmp123").touch()
    names = [file.name for file in cached_files(path)]
    assert names == ["data.hdf5", "data.hdf5.sha256", "tmp123"]


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="needs sha256sum")
def test_record_has_the_format_of_sha256sum(path):
    command = ["sha256sum", "--check", "--strict", "data.hdf5.sha256"]
    subprocess.run(command, cwd=path.parent, check=True, capture_output=True)


def test_file_is_compared_with_its_record(path):
    before, content = sha256_of(path), bytearray(path.read_bytes())
    verify_sha256(path, before)
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not the file that was downl") as error:
        verify_sha256(path, sha256_of(path))
    for part in (str(path), before, sha256_of(path), "data.hdf5.sha256"):
        assert part in str(error.value)
    path.with_name("data.hdf5.sha256").unlink()
    verify_sha256(path, sha256_of(path))  # without a record any file passes


@pytest.mark.parametrize("record", [b"", b"0" * 65, b"\xff" * 64])
def test_corrupt_record_is_reported(path, record):
    path.with_name("data.hdf5.sha256").write_bytes(record)
    with pytest.raises(UserError, match=r"data\.hdf5\.sha256 contains"):
        verify_sha256(path, sha256_of(path))
