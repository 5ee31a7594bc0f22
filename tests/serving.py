"""A web server on this machine, with the troubles that one wants."""

import re
import socket
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_TICK = 0.01  # seconds between the pieces of a body that is sent slowly


class Server(ThreadingHTTPServer):
    """Serves a file as RFC 9110 says, or what the next one of `troubles` makes of it.

    Attributes:
      content: the file, the same under every path.
      version: the headers that tell which version of the file it is.
      troubles: functions of the handler that answer the next GETs.
      usual: one that answers the others.
      head: one that answers all HEADs.
      asked: the headers of each GET so far.
      release: ends all stalls.
      tls: what answers to TLS; without it, whoever tries that is hung up on.
    """

    daemon_threads = True

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.version = {"ETag": '"1"'}
        self.troubles = []
        self.usual = serve
        self.head = send_head
        self.asked = []
        self.release = threading.Event()
        self.tls = None
        self.url = f"http://127.0.0.1:{self.server_port}/data.hdf5"

    def get_request(self):
        connection, address = super().get_request()
        if connection.recv(1, socket.MSG_PEEK) == b"\x16":  # a TLS handshake
            if self.tls is None:
                connection.close()
                raise ConnectionError
            connection = self.tls.wrap_socket(connection, server_side=True)
        return connection, address

    def handle_error(self, request, client_address):
        """Say nothing of a client that has gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(content):
    """Yield a server at work."""
    with Server(content) as server:
        # shutdown() waits as long as the server polls.
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.server.head(self)

    def do_GET(self):
        self.server.asked.append(self.headers)
        troubles = self.server.troubles
        (troubles.pop(0) if troubles else self.server.usual)(self)

    def log_message(self, *_):
        pass


def send_head(handler):
    handler.send_response(200)
    handler.end_headers()


def serve(handler, stop=None, stall=False, seconds=0):
    """Answer as one should, but for sending the bytes up to `stop` alone.

    That takes so many seconds, and more where the line is to stall.
    """
    server = handler.server
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "")
    same = handler.headers["If-Range"] in server.version.values()
    start = int(asked[1]) if asked and same else 0
    send(handler, start, 206 if start else 200, stop=stop, seconds=seconds)
    if stall:
        server.release.wait(5)


def send(handler, start, status, stop=None, changed=(), seconds=0):
    server, size = handler.server, len(handler.server.content)
    headers = {"Content-Length": size - start, **server.version}
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    handler.send_response(status)
    for key, value in (headers | dict(changed)).items():
        handler.send_header(key, str(value))
    handler.end_headers()
    body = server.content[start:stop]
    piece = -(-len(body) // int(seconds / _TICK + 1)) or 1
    for i in range(0, len(body), piece):
        handler.wfile.write(body[i : i + piece])
        handler.wfile.flush()
        if seconds:
            time.sleep(_TICK)
