import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from dt_jax.data.download import cache_folder, download
from dt_jax.errors import UserError

CONTENT = bytes(range(256)) * 10_000  # more than one chunk


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        announced = {"/whole": len(CONTENT), "/cut": len(CONTENT) + 1}
        if self.path not in (*announced, "/unannounced"):
            self.send_error(404)
            return
        self.send_response(200)
        if self.path in announced:
            self.send_header("Content-Length", str(announced[self.path]))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def server():
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["whole", "unannounced"])
def test_a_file_arrives_in_a_new_folder(server, tmp_path, capfd, name):
    path = tmp_path / "new" / "data.hdf5"
    download(f"{server}/{name}", path)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert f"{server}/{name}" in told.err


@pytest.mark.parametrize(
    ("name", "told"),
    [("missing", "404"), ("cut", f"{len(CONTENT)} of {len(CONTENT) + 1} bytes")],
)
def test_a_failure_leaves_what_was_there(server, tmp_path, name, told):
    path = tmp_path / "data.hdf5"
    path.write_text("old")
    assert_one_line(f"{server}/{name}", path, told)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_network(tmp_path, capfd):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    path = tmp_path / "data.hdf5"
    assert_one_line(f"http://127.0.0.1:{port}/data.hdf5", path, "refused")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""  # the error line is to be the only one


def test_a_terminal_gets_a_bar(server, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")
    path = tmp_path / "data.hdf5"
    download(f"{server}/whole", path)
    assert path.read_bytes() == CONTENT
    assert "2.6/2.6 MB" in capfd.readouterr().err


def assert_one_line(url: str, path: Path, told: str):
    with pytest.raises(UserError) as caught:
        download(url, path)
    message = str(caught.value)
    assert "\n" not in message
    assert told in message
    assert f"{url} could not be downloaded" in message
    assert f"put it at {path}" in message


def test_the_cache_folder_is_the_users_unless_the_variable_says_otherwise(monkeypatch):
    monkeypatch.delenv("DT_JAX_DATA", raising=False)
    assert cache_folder().name == "dt_jax"
    assert cache_folder().is_absolute()
    monkeypatch.setenv("DT_JAX_DATA", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"
