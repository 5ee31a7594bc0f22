import shutil
import subprocess
from pathlib import Path

import pytest

from dt_jax.data.cache import (
    alone_with,
    cache_folder,
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


def test_the_cache_folder_is_the_users_unless_the_variable_says_otherwise(monkeypatch):
    monkeypatch.delenv("DT_JAX_DATA", raising=False)
    assert cache_folder().name == "dt_jax"
    assert cache_folder().is_absolute()
    monkeypatch.setenv("DT_JAX_DATA", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"


def test_who_is_alone_with_a_file_clears_up_after_killed_writers(tmp_path):
    path, other = tmp_path / "new" / "a.hdf5", tmp_path / "new" / "b.hdf5"
    left = ".{}.01234567.tmp.hdf5", ".{}.hdf5.01234567.tmp.sha256"
    path.parent.mkdir()
    for file in (path, other):
        for name in left:
            (path.parent / name.format(file.stem)).touch()
    with alone_with(path, "writing"):
        now = {file.name for file in path.parent.iterdir()}
        assert now == {".a.hdf5.lock", *(name.format("b") for name in left)}
    assert not path.with_name(".a.hdf5.lock").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    told = r"/file: .*; name another folder by DT_JAX_DATA"
    with pytest.raises(UserError, match=told), alone_with(tmp_path / "file/a", "at"):
        pass


def test_a_file_as_it_came(path):
    verify_sha256(path, sha256_of(path))


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="needs sha256sum")
def test_the_record_is_one_of_sha256sum(path):
    command = ["sha256sum", "--check", "--strict", "data.hdf5.sha256"]
    subprocess.run(command, cwd=path.parent, check=True, capture_output=True)


def test_a_flipped_bit_is_found(path):
    before, content = sha256_of(path), bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not the file that was downloaded") as told:
        verify_sha256(path, sha256_of(path))
    for part in (str(path), before, sha256_of(path), "data.hdf5.sha256"):
        assert part in str(told.value)


def test_without_a_record_a_file_may_be_anything(path):
    path.with_name("data.hdf5.sha256").unlink()
    verify_sha256(path, "0" * 64)


@pytest.mark.parametrize("record", [b"", b"0" * 63, b"0" * 65, b"\xff" * 64, b"zz  x"])
def test_a_damaged_record(path, record):
    path.with_name("data.hdf5.sha256").write_bytes(record)
    with pytest.raises(UserError, match=r"data\.hdf5\.sha256 is damaged") as told:
        verify_sha256(path, sha256_of(path))
    assert "\n" not in str(told.value)
