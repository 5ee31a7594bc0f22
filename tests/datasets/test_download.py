"""Downloads from a local server that fails in different ways."""

import hashlib
import subprocess
import sys
import time
from functools import partial

import pooch
import pytest
from serving import closed_port, serve, serving, status

from dt_jax.data.cache import download_folder
from dt_jax.datasets.load import download
from dt_jax.utils.errors import UserError

CONTENT = bytes(range(256)) * 2_500
HALF = len(CONTENT) // 2


@pytest.fixture(autouse=True)
def _fast_retries(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setattr(pooch.core.time, "sleep", lambda _: None)


@pytest.fixture
def server():
    with serving(CONTENT) as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "data.hdf5"


def no_check(path):
    """Accept any file."""


def names(path):
    """Return the names of the files beside `path`, without its lock."""
    return {p.name for p in path.parent.iterdir()} - {".data.hdf5.lock"}


def assert_downloaded(path, content=CONTENT):
    assert path.read_bytes() == content
    assert names(path) == {"data.hdf5", "data.hdf5.sha256"}
    record = f"{hashlib.sha256(content).hexdigest()}  data.hdf5\n"
    assert path.with_name("data.hdf5.sha256").read_text() == record


def assert_fails(url, path, *parts, check=no_check):
    with pytest.raises(UserError) as error:
        download(url, path, check)
    message = str(error.value)
    assert "\n" not in message
    for part in (f"{url}: download failed", f"copy the file to {path}", *parts):
        assert part in message
    assert names(path) == set()


def test_file_is_downloaded_into_a_new_folder(server, path, capfd):
    download(server.url, path, no_check)
    assert capfd.readouterr() == (f"downloading {server.url}\n", "")
    assert_downloaded(path)
    assert path.stat().st_mode & 0o777 == 0o644  # readable in a shared cache


def test_terminal_gets_a_progress_bar(server, path, monkeypatch, capfd):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    download(server.url, path, no_check)
    assert_downloaded(path)
    assert "640k/640k" in capfd.readouterr().err


def test_existing_file_is_kept(server, path):
    path.parent.mkdir()
    path.write_text("old")
    download(server.url, path, no_check)
    assert path.read_text() == "old"
    assert not server.requests


@pytest.mark.parametrize(
    "failure",
    [partial(serve, stop=HALF), status(500), status(503)],
    ids=["disconnect", "500", "503"],
)
def test_failed_download_is_retried_twice(server, path, failure):
    server.failures = [failure, failure]
    download(server.url, path, no_check)
    assert_downloaded(path)
    assert len(server.requests) == 3


def test_server_that_always_disconnects_is_reported(server, path):
    server.usual = partial(serve, stop=HALF)
    assert_fails(server.url, path, f"{HALF} bytes read")
    assert len(server.requests) == 3


def test_missing_file_is_reported(server, path):
    server.usual = status(404)
    assert_fails(server.url, path, "404 Client Error: Not Found")


def test_missing_network_is_reported(path):
    url = f"http://127.0.0.1:{closed_port()}/data.hdf5"
    assert_fails(url, path, "Connection refused", "set data_path to another one")


def test_file_that_fails_the_check_is_deleted(server, path):
    def check(file):
        assert file.read_bytes() == CONTENT
        raise UserError(f"{file} is not an HDF5 file")

    assert_fails(server.url, path, "(data.hdf5 is not an HDF5 file)", check=check)
    download(server.url, path, no_check)
    assert_downloaded(path)


PROCESS = """
import sys
from pathlib import Path
from dt_jax.datasets.load import download
download(sys.argv[1], Path(sys.argv[2]), lambda path: None)
"""


def start(server, path):
    command = [sys.executable, "-c", PROCESS, server.url, str(path)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_download_leaves_no_file_and_is_repeated(server, path):
    server.failures = [partial(serve, stop=HALF, stall=True)]
    with start(server, path) as process:
        wait_until(
            lambda: any(f.stat().st_size for f in download_folder(path).glob("*"))
        )
        process.kill()
    assert not path.exists()
    download(server.url, path, no_check)
    assert_downloaded(path)


def test_second_process_waits_for_the_first(server, path):
    server.failures = [partial(serve, stop=HALF, stall=True)]
    with start(server, path) as first:
        wait_until(lambda: server.requests)
        with start(server, path) as second:
            assert "another process is downloading" in second.stderr.readline()
            server.release.set()
            assert second.wait(20) == 0
            assert second.stderr.read() == ""
    assert first.returncode == 0
    assert_downloaded(path)
    assert len(server.requests) == 2
