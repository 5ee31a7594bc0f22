"""Downloads from a real server on this machine, in which all that can go wrong does."""

import hashlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request

import pytest
import trustme
from serving import Handler, send, send_head, serve, serving

from dt_jax.data.cache import record_sha256
from dt_jax.datasets import download as module
from dt_jax.datasets.download import download
from dt_jax.utils.errors import UserError

CONTENT = bytes(range(256)) * 2_500
OTHER = CONTENT[::-1]
HALF = len(CONTENT) // 2


def cut(stop=HALF):
    return lambda handler: serve(handler, stop)


def stall(stop=HALF):
    return lambda handler: serve(handler, stop, stall=True)


def status(code):
    return lambda handler: handler.send_error(code)


def partial(start=None, changed=()):
    """Answer 206, whatever If-Range says; with some headers changed."""

    def answer(handler):
        asked = int(handler.headers["Range"][len("bytes=") : -1])
        begin = asked if start is None else start
        send(handler, begin, 206, changed=changed)

    return answer


def change(server, content=OTHER, **version):
    server.content, server.version = content, version or {"ETag": '"2"'}


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return closed.getsockname()[1]


def nothing(path):
    """Check nothing."""


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(autouse=True)
def _patience(monkeypatch, authority):
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setattr(module, "_PAUSES", (0.001, 0.002, 0.003))
    monkeypatch.setattr(module, "_CHUNK", 1 << 16)
    with authority.cert_pem.tempfile() as certificate:
        trust(certificate, monkeypatch)
        yield
    urllib.request.install_opener(None)


def trust(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    urllib.request.install_opener(None)  # it would keep the certificates it began with


@pytest.fixture
def server():
    with serving(CONTENT) as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "data.hdf5"


def names(path):
    """Return the files beside `path` but its lock, which may stay or not."""
    return {p.name for p in path.parent.iterdir()} - {".data.hdf5.lock"}


def assert_there(path, content=CONTENT):
    assert path.read_bytes() == content
    assert names(path) == {"data.hdf5", "data.hdf5.sha256"}
    record = f"{hashlib.sha256(content).hexdigest()}  data.hdf5\n"
    assert path.with_name("data.hdf5.sha256").read_text() == record


def assert_one_line(url, path, *told, check=nothing):
    with pytest.raises(UserError) as caught:
        download(url, path, check)
    message = str(caught.value)
    assert "\n" not in message
    for part in (f"{url} could not be downloaded", f"put it at {path}", *told):
        assert part in message
    assert not path.exists()
    return message


def interrupt(server, path):
    """Leave what an earlier call got before the server broke off again and again."""
    server.troubles += [cut(), *[status(503)] * len(module._PAUSES)]
    message = assert_one_line(server.url, path, "503")
    assert not server.troubles
    server.asked.clear()
    return message


# All goes well.


def test_a_file_arrives_in_a_new_folder(server, path, capfd):
    download(server.url, path, nothing)
    assert_there(path)
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err == f"downloading {server.url} ({len(CONTENT)} bytes)\n"


def test_an_unannounced_length(server, path, capfd):
    def closing(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT)

    server.troubles = [closing]
    download(server.url, path, nothing)
    assert_there(path)
    assert len(server.asked) == 1
    assert "(unknown bytes)" in capfd.readouterr().err


def test_a_terminal_gets_a_bar(server, path, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")
    download(server.url, path, nothing)
    assert_there(path)
    assert "640.0/640.0 kB" in capfd.readouterr().err


def test_what_is_there_is_left_alone(server, path):
    path.parent.mkdir()
    path.write_text("old")
    download(server.url, path, nothing)
    assert path.read_text() == "old"
    assert not server.asked


# Nothing that helps to try again.


def test_404_is_told_at_once(server, path):
    server.troubles = [status(404)]
    assert_one_line(server.url, path, "the server answers 404 Not Found")
    assert len(server.asked) == 1
    assert names(path) == set()


def test_no_network(path, capfd):
    assert_one_line(f"http://127.0.0.1:{closed_port()}/data.hdf5", path, "refused")
    assert names(path) == set()
    assert capfd.readouterr().err == ""  # the error line is to be the only one


def test_more_than_the_disk_has_room_for(server, path):
    huge = 1 << 60
    announced = {"Content-Length": huge}
    server.troubles = [lambda h: send(h, 0, 200, stop=0, changed=announced)]
    with pytest.raises(
        UserError, match=rf"needs {huge:,} bytes, and {path.parent} has"
    ):
        download(server.url, path, nothing)
    assert len(server.asked) == 1
    assert not path.exists()


def test_what_fails_the_check_leaves_nothing(server, path):
    def check(part):
        assert part.read_bytes() == CONTENT
        raise UserError(f"{part} is no HDF5 file")

    assert_one_line(server.url, path, "(what came is no HDF5 file)", check=check)
    assert names(path) == set()
    download(server.url, path, nothing)
    assert [headers["Range"] for headers in server.asked] == [None, None]


# Trouble on the line.


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [(cut(), f"it ended after {HALF} of {len(CONTENT)} bytes"), (stall(), "timed out")],
    ids=["cut", "stall"],
)
def test_it_goes_on_where_the_line_broke(
    server, path, monkeypatch, capfd, trouble, reason
):
    monkeypatch.setattr(module, "_TIMEOUT", 0.5)
    server.troubles = [trouble]
    download(server.url, path, nothing)
    assert_there(path)
    first, second = server.asked
    assert first["Range"] is None
    assert second["Range"] == f"bytes={HALF}-"
    assert second["If-Range"] == '"1"'
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 3
    assert told[1] == f"{server.url}: {reason}; trying again in 0.001 s"
    assert f"going on at byte {HALF} of {len(CONTENT)}" in told[2]


def test_a_trickle_counts_as_a_broken_line(server, path, monkeypatch, capfd):
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    server.troubles = [lambda handler: serve(handler, seconds=50)]
    download(server.url, path, nothing)
    assert_there(path)
    told = re.search(
        r": only (\d+) bytes came in 0.2 s; trying", capfd.readouterr().err
    )
    assert 0 < int(told[1]) <= module._TRICKLE
    assert server.asked[1]["Range"] == f"bytes={told[1]}-"


def test_a_slow_line_is_not_a_broken_one(server, path, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    monkeypatch.setattr(module, "_TRICKLE", 1_000)
    server.usual = lambda handler: serve(handler, seconds=0.5)
    download(server.url, path, nothing)
    assert_there(path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_that_has_trouble_once(server, path, code):
    server.troubles = [status(code)]
    download(server.url, path, nothing)
    assert_there(path)
    assert len(server.asked) == 2


def test_a_server_that_has_trouble_for_ever(server, path, monkeypatch):
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    server.troubles = [status(500)] * 99
    message = assert_one_line(server.url, path, "500 Internal Server Error")
    assert pauses == [0.001, 0.002, 0.003]
    assert len(server.asked) == 4
    assert "same command" not in message  # for there is nothing to go on from
    assert names(path) == set()


def test_tries_count_anew_after_progress(server, path):
    server.troubles = [*[status(500)] * 3, cut(), *[status(500)] * 2]
    download(server.url, path, nothing)
    assert_there(path)
    assert len(server.asked) == 7


def test_crumbs_are_no_progress(server, path):
    server.troubles = [cut(1000 * i) for i in range(1, 99)]
    assert_one_line(server.url, path, f"it ended after 4000 of {len(CONTENT)} bytes")
    assert len(server.asked) == 4


def test_the_network_may_go_away_in_between(server, path):
    """Unlike at the start: a laptop that wakes up, a router that restarts."""

    def lead_nowhere(handler):
        handler.send_response(302)
        handler.send_header("Location", f"http://127.0.0.1:{closed_port()}/")
        handler.end_headers()

    server.troubles = [cut(), lead_nowhere]
    download(server.url, path, nothing)
    assert_there(path)
    assert len(server.asked) == 3


# A later call goes on, or begins anew where it has to.


def test_the_next_call_goes_on(server, path, capfd):
    assert "the same command goes on where it stopped" in interrupt(server, path)
    assert names(path) == {".data.hdf5.part", ".data.hdf5.part.json"}
    capfd.readouterr()
    download(server.url, path, nothing)
    assert_there(path)
    assert [headers["Range"] for headers in server.asked] == [f"bytes={HALF}-"]
    told = capfd.readouterr().err
    assert told == f"{server.url}: going on at byte {HALF} of {len(CONTENT)}\n"


def test_last_modified_will_do(server, path):
    modified = "Mon, 01 Jan 2024 00:00:00 GMT"
    server.version = {"Last-Modified": modified}
    interrupt(server, path)
    # RFC 9110 lets the partial answer leave it out.
    server.troubles = [lambda h: (server.version.clear(), partial()(h))]
    download(server.url, path, nothing)
    assert_there(path)
    assert [headers["If-Range"] for headers in server.asked] == [modified]


@pytest.mark.parametrize(
    "version",
    [
        {},
        {"ETag": 'W/"1"'},
        {"ETag": 'W/"1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"},
        {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT", "Date": None},
    ],
    ids=["none", "weak", "weak and dated", "changed this second"],
)
def test_without_a_validator_it_begins_anew(server, path, monkeypatch, version):
    if "Date" in version:
        monkeypatch.setattr(
            Handler, "date_time_string", lambda _: version["Last-Modified"]
        )
        del version["Date"]
    server.version = version
    assert "same command" not in interrupt(server, path)
    download(server.url, path, nothing)
    assert_there(path)
    assert [headers["Range"] for headers in server.asked] == [None]


def test_the_rest_alone_needs_room(server, path, monkeypatch):
    interrupt(server, path)
    usage = shutil.disk_usage(path.parent)._replace(free=len(CONTENT) - HALF)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    download(server.url, path, nothing)
    assert_there(path)


@pytest.mark.parametrize("note", ["", "{}", "[]", "null", '{"url": 1}', "\xff"])
def test_a_damaged_note_is_no_obstacle(server, path, note):
    interrupt(server, path)
    (path.parent / ".data.hdf5.part.json").write_text(note, encoding="latin1")
    download(server.url, path, nothing)
    assert_there(path)
    assert [headers["Range"] for headers in server.asked] == [None]


def test_a_part_of_another_url(server, path):
    interrupt(server, path)
    download(server.url + "?other", path, nothing)
    assert_there(path)
    assert [headers["Range"] for headers in server.asked] == [None]


def test_the_file_changed_and_the_server_knows(server, path):
    interrupt(server, path)
    change(server)
    download(server.url, path, nothing)  # If-Range brings a 200
    assert_there(path, OTHER)
    assert len(server.asked) == 1


def test_the_file_changes_within_a_call(server, path):
    server.troubles = [cut(), lambda h: (change(server), serve(h, HALF // 2))]
    download(server.url, path, nothing)
    assert_there(path, OTHER)
    assert [headers["If-Range"] for headers in server.asked] == [None, '"1"', '"2"']


@pytest.mark.parametrize(
    ("trouble", "changed"),
    [
        (partial(), {}),  # another ETag
        (partial(), {"content": OTHER + b"more", "ETag": '"1"'}),
        (partial(), {"content": OTHER[:-1], "ETag": '"1"'}),
        (partial(start=HALF + 1), {"content": CONTENT, "ETag": '"1"'}),
        (partial(start=0), {"content": CONTENT, "ETag": '"1"'}),
        (
            partial(changed={"Content-Range": "bytes"}),
            {"content": CONTENT, "ETag": '"1"'},
        ),
        (partial(changed={"Content-Range": ""}), {"content": CONTENT, "ETag": '"1"'}),
        (partial(changed={"ETag": 'W/"1"'}), {"content": CONTENT, "ETag": '"1"'}),
        (lambda h: send(h, 0, 200), {"content": CONTENT, "ETag": '"1"'}),
        (status(416), {"content": CONTENT[:HALF]}),
    ],
    ids=[
        "another ETag",
        "longer",
        "shorter",
        "wrong start",
        "from the start",
        "no numbers",
        "no range",
        "now weak",
        "Range ignored",
        "416",
    ],
)
def test_what_does_not_fit_the_part_is_not_appended(server, path, trouble, changed):
    interrupt(server, path)
    change(server, **changed)
    server.troubles = [trouble]
    download(server.url, path, nothing)
    assert_there(path, server.content)
    assert server.asked[0]["Range"] == f"bytes={HALF}-"
    assert [headers["Range"] for headers in server.asked[1:]] in ([], [None])


def test_more_bytes_than_announced(server, path):
    interrupt(server, path)

    def generous(handler):
        handler.send_response(206)
        handler.send_header("ETag", '"1"')
        last = len(CONTENT) - 1
        handler.send_header("Content-Range", f"bytes {HALF}-{last}/{len(CONTENT)}")
        handler.end_headers()
        handler.wfile.write(CONTENT[HALF:] + b"more")

    server.troubles = [generous]
    download(server.url, path, nothing)
    assert_there(path)
    assert server.asked[-1]["Range"] is None


# Processes.

PROCESS = """
import sys
from pathlib import Path
from dt_jax.datasets.download import download
download(sys.argv[1], Path(sys.argv[2]), lambda part: None)
"""


def start(server, path):
    command = [sys.executable, "-c", PROCESS, server.url, str(path)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_going_on_after_a_kill(server, path):
    server.troubles = [stall()]
    part = path.parent / ".data.hdf5.part"
    with start(server, path) as process:
        wait_until(lambda: part.exists() and part.stat().st_size > HALF // 2)
        process.kill()
    size = part.stat().st_size
    assert not path.exists()
    download(server.url, path, nothing)
    assert_there(path)
    assert server.asked[1]["Range"] == f"bytes={size}-"


@pytest.mark.parametrize("recorded", [False, True])
def test_a_kill_before_the_file_gets_its_name(server, path, monkeypatch, recorded):
    class Killed(BaseException):
        pass

    def kill(*arguments):
        if recorded:
            record_sha256(*arguments)
        raise Killed

    monkeypatch.setattr(module, "record_sha256", kill)
    with pytest.raises(Killed):
        download(server.url, path, nothing)
    assert not path.exists()
    monkeypatch.setattr(module, "record_sha256", record_sha256)
    download(server.url, path, nothing)
    assert_there(path)
    assert len(server.asked) == 1  # all of it was there already


def test_two_processes_want_one_file(server, path):
    server.troubles = [stall()]
    with start(server, path) as first:
        wait_until(lambda: server.asked)
        with start(server, path) as second:
            assert "waiting for it" in second.stderr.readline()
            server.release.set()
            assert second.wait(10) == 0
            assert second.stderr.read() == ""
    assert first.returncode == 0
    assert_there(path)
    assert len(server.asked) == 2


# https where the host has it.


@pytest.fixture
def both(server, authority):
    """Let `server` answer to TLS too."""
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server.tls)
    server.url = f"http://localhost:{server.server_port}/data.hdf5"
    return server


def secured(url):
    return url.replace("http:", "https:")


@pytest.mark.parametrize("url_of", [str, secured], ids=["http", "https"])
def test_https_where_the_host_has_it(both, path, capfd, url_of):
    both.troubles = [cut()]
    download(url_of(both.url), path, nothing)
    assert_there(path)
    assert both.asked[1]["Range"] == f"bytes={HALF}-"
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 3
    assert all(secured(both.url) in line for line in told)


@pytest.mark.parametrize(
    ("head", "url_of"),
    [
        (status(404), str),  # another site answers to https
        (lambda h: (h.server.release.wait(5), send_head(h)), str),
        (status(503), secured),
    ],
    ids=["404", "stall", "503"],
)
def test_what_stands_behind_https_decides(both, path, monkeypatch, capfd, head, url_of):
    monkeypatch.setattr(module, "_HTTPS_TIMEOUT", 0.3)
    both.head = head
    download(both.url, path, nothing)
    assert_there(path)
    assert capfd.readouterr().err.startswith(f"downloading {url_of(both.url)} ")


def test_a_certificate_that_cannot_be_trusted(both, path, monkeypatch, capfd):
    trust(os.devnull, monkeypatch)
    assert_one_line(secured(both.url), path, "CERTIFICATE_VERIFY_FAILED")
    assert not both.asked
    assert capfd.readouterr().err == ""
    download(both.url, path, nothing)
    assert_there(path)
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 2
    assert f"going on by http, for {secured(both.url)} can't be trusted" in told[0]
    assert told[1].startswith(f"downloading {both.url} ")
